"""Runs of ``swinv2 predict --shards`` over torchrun and Ray, killed 50 times at random moments.

Victims are the processes with a model and those that started them; what they leave running goes on
beside the next start.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shard_runs import require_exactly_once, results
from small_predictor import write_images, write_model

from swinv2_backbone.d2.inference.scale.run_record import find_run

TOOL = Path(__file__).parents[4] / "tools" / "predict.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2"]
STARTS = {"torchrun": ([*TORCHRUN, str(TOOL)], []), "ray": ([str(TOOL)], ["--ray", "--workers=2"])}
WORKERS = {"torchrun": str(TOOL), "ray": "ray::"}  # in the command lines of those with a model
KILLS, IMAGES = 50, 2000
PATIENCE = 60  # seconds for a start, on a busy machine


@pytest.mark.reliability
@pytest.mark.parametrize("system", STARTS)
def test_fifty_kills_lose_and_repeat_nothing(tmp_path, system, record_figures):
    if system == "ray":
        pytest.importorskip("ray.data")
    config = write_model(tmp_path / "model")
    images = write_images(tmp_path / "images", IMAGES)
    whole = finish(tmp_path, config, "whole", "torchrun")
    chance, kills, rounds, count = random.Random(0), {"worker": 0, "driver": 0}, 0, 0
    while count < KILLS:
        rounds += 1
        killed = killed_run(tmp_path, config, f"round{rounds}", system, KILLS - count, chance)
        kills = {name: kills[name] + killed[name] for name in kills}
        count = sum(kills.values())
        found = results(finish(tmp_path, config, f"round{rounds}", system))
        require_exactly_once(found, [str(path) for path in images])
        assert found == results(whole)
    record_figures(
        "R19",
        f"{system}: {kills['worker']} kills of workers, {kills['driver']} of drivers, "
        f"{rounds} runs, each image exactly once",
    )


def killed_run(folder, config, name, system, most, chance) -> dict[str, int]:
    """Start a run, and kill its processes and start it again, until it ends or ``most`` kills."""
    kills, left = {"worker": 0, "driver": 0}, []
    driver = start(folder, config, name, system)
    while sum(kills.values()) < most:
        if wait(folder / name, driver, chance) == 0:
            break
        family = descendants(driver.pid)
        workers = [pid for pid, line in family.items() if WORKERS[system] in line]
        victim = chance.choice(["worker", "driver"])
        if victim == "worker" and workers:
            kills["worker"] += kill(chance.choice(workers))
        elif victim == "driver":
            left += workers  # they go on for a while, or to the end of the run
            kills["driver"] += kill(driver.pid)
            driver.wait()
        if driver.poll() is not None:  # killed, or ended after too many losses of workers
            driver = start(folder, config, name, system)
        while len(left) > 2:  # of three drivers; more would only slow the test down
            kill(left.pop(0))
    if driver.poll() is None:
        kill(driver.pid)
    for pid in (*left, *descendants(driver.pid)):
        kill(pid)
    driver.wait()
    return kills


def wait(results: Path, driver: subprocess.Popen, chance: random.Random) -> int | None:
    """Wait for a random moment: of the start, or after up to four further shards.

    Returns:
        The exit code of the driver, or None while it runs.
    """
    shards = chance.choice([0, 1, 2, 3, 4])
    end = time.monotonic() + (PATIENCE if shards else chance.uniform(1, 10))
    most = written(results) + shards
    while time.monotonic() < end and driver.poll() is None:
        if shards and written(results) >= most:
            time.sleep(chance.uniform(0, 0.5))
            break
        time.sleep(0.05)
    return driver.poll()


def written(results: Path) -> int:
    return len(list(results.glob("predictions-*.jsonl")))


def command(folder, config, name, system) -> list[str]:
    launcher, options = STARTS[system]
    given = ["--config-file", str(config), "--input", str(folder / "images"), "--confidence", "0"]
    to = ["--shards", str(folder / name), "--shard-size", "20", *options]
    return [sys.executable, "-W", "ignore", *launcher, *given, *to]


def start(folder, config, name, system) -> subprocess.Popen:
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command(folder, config, name, system),
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def finish(folder, config, name, system):
    """Let a run end without a kill, and return it."""
    driver = start(folder, config, name, system)
    assert driver.wait(1200) == 0, (folder / f"{name}.log").read_text()[-3000:]
    return find_run(folder / name)


def descendants(pid: int) -> dict[int, str]:
    """The command lines of the processes that a process has started, and those of these."""
    parents, lines = {}, {}
    for one in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parents[int(one.name)] = int((one / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(one.name)] = (one / "cmdline").read_text().replace("\0", " ")
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {child: lines[child] for child in found - {pid} if child in lines}


def kill(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False
