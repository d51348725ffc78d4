"""Trainings that are killed: at random moments, and exactly while a file is written."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

from reliability.judging import has_traceback, iteration_of, started_from, unreadable
from reliability.processes import Command, Prepare, around
from reliability.scene import DIALECTS, ITERATIONS
from reliability.work import Work, stated
from swinv2_backbone.checkpoints import durable
from swinv2_backbone.cli import predict

# What a process has begun, how many times at most, and the seconds that it may take.
MOMENTS = (
    ("start", 1, 0.4),
    ("config", 1, 0.04),
    ("step", 4, 0.1),
    ("save", 2, 0.12),
    ("evaluation", 1, 0.15),
    ("save model_final", 1, 0.5),
)
LENGTH = 24  # iterations


def kills_at_random_moments(work: Work, dialect: str) -> str:
    """Kill trainings and resume them until they end; all must end as an uninterrupted one."""
    kills, runs = Counter[str](), 0
    wanted = 120 if work.full else 25
    moments = cycle(MOMENTS)
    while kills.total() < wanted:
        runs += 1
        changes = {"workers": 2 * (runs % 2), "iterations": LENGTH}
        kills += killed_run(work, f"run{runs}", dialect, moments, wanted - kills.total(), changes)
    work.times = kills.total()
    return stated(work.times, f"kills of {runs} trainings, bitwise equal", kills)


def killed_run(
    work: Work,
    name: str,
    dialect: str,
    moments: Iterator,
    most: int,
    changes: dict,
    prepare: Prepare | None = None,
) -> Counter[str]:
    """Kill and resume one training until it ends; returns the kills by moment."""
    kills, saved = Counter[str](), -1
    while kills.total() < most:
        command = work.train(name, dialect, "--resume", prepare=prepare, **changes)
        moment = _kill(work, command, *next(moments))
        saved = _check_resumed(work, name, command, saved, LENGTH)
        command.end()
        if not moment:
            work.expect(command.code == 0, f"{name}: ends with {command.code}: {command.last}")
            break
        kills[moment] += 1
        for fault in unreadable(work.folder / name):
            work.expect(False, f"{name}, killed in {moment}: {fault}")
    work.finish(name, dialect, **changes)
    for fault in unreadable(work.folder / name):
        work.expect(False, f"{name}, at its end: {fault}")
    return kills


def _kill(work: Work, command: Command, moment: str, most: int, seconds: float) -> str:
    """Kill a process at a random moment; "" if it ended before."""
    for _ in range(work.chance.randint(1, most)):
        if not command.wait_for(moment):
            command.wait()
            return ""
    command.wait_until(work.chance.uniform(0, seconds))
    command.kill(group=work.chance.random() < 0.5)
    return moment if command.code == -signal.SIGKILL else ""


def _check_resumed(
    work: Work, name: str, command: Command, saved: int, iterations: int = ITERATIONS
) -> int:
    """Require that a training went on after the last completed save; returns its own last one."""
    if command.code != -signal.SIGKILL:  # workers of a killed process report that it is lost
        work.expect(not has_traceback(command.text), f"{name}: a traceback")
    work.expect(not command.hung, f"{name}: hangs")
    begin = started_from(command.text)
    lost = f"{name}: iteration {saved} was saved, but resumed from {begin}"
    work.expect(begin is None or begin > saved, lost)
    done = [one.split()[1] for one in command.told if one.startswith("/save")]
    return max([saved, *(iteration_of(one, iterations) for one in done)])


# ---- While a file is written

WRITES = ("opened", "half written", "before the rename", "after the rename")


def at_write(name: str, moment: str, act: Callable[[], Any]) -> Prepare:
    """Return a function that calls ``act`` while a file whose name begins so is written."""

    def prepare() -> None:
        if moment in WRITES[:2]:
            around(durable._DigestingFile, "write", write)
        else:
            around(durable, "_put_in_place", put)

    def write(original: Callable, file: Any, data: bytes) -> int:
        if not Path(file.file.name).name.startswith(name):
            return original(file, data)
        half = len(data) // 2 * (moment == "half written")
        original(file, data[:half])
        file.flush()
        act()
        return half + original(file, data[half:])

    def put(original: Callable, partial: Path, path: Path) -> None:
        ours = path.name.startswith(name)
        if ours and moment == "before the rename":
            act()
        original(partial, path)
        if ours and moment == "after the rename":
            act()

    return prepare


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def config_kills(work: Work) -> str:
    """Kill trainings while --resume writes config.yaml, which must stay whole."""
    for dialect in DIALECTS:
        for moment in WRITES:
            name = f"{dialect}_{moment.replace(' ', '_')}"
            work.train(name, dialect, iterations=3).wait()
            prepare = at_write("config.yaml", moment, kill_itself)
            command = work.train(name, dialect, "--resume", prepare=prepare)
            work.expect(command.wait() == -signal.SIGKILL, f"{name}: was not killed")
            work.times += 1
            for fault in unreadable(work.folder / name):
                work.expect(False, f"{name}: {fault}")
            _use_config(work, name, dialect)
    return stated(work.times, "kills, config.yaml whole and usable")


def _use_config(work: Work, name: str, dialect: str) -> None:
    """Predict and train with the config.yaml of a training."""
    folder, weights = work.folder / name, work.folder / name / "model_final.pth"
    changes = work.scene.command(folder / "trained", dialect, iterations=2)[2:]
    config = ["--config-file", str(folder / "config.yaml")]
    drawn = ["--input", str(work.scene.images[0]), "--output", str(folder / "drawn")]
    key = "MODEL.WEIGHTS {}" if dialect == "yaml" else "train.init_checkpoint={}"
    console = work.folder / f"{name}.txt"
    commands = [
        Command([*config, *drawn, *key.format(weights).split()], console, main=predict.main),
        Command([*config, *changes], console),
    ]
    for command in commands:
        work.expect(command.wait() == 0, f"{name}: config.yaml is refused: {command.last}")


def worker_killed_in_save(work: Work) -> str:
    """Kill a worker while a checkpoint is written: whole or not, and the worker is named."""
    kinds = Counter[str]()
    for number in range(28):
        moment, dialect = WRITES[number % 4], DIALECTS[number // 4 % 2]
        victim = ("model_0000002", "model_0000005", "model_final")[number % 3]
        name = f"save{number}"
        prepare = at_write(victim, moment, kill_worker)
        command = work.train(name, dialect, prepare=prepare, workers=2)
        command.wait()
        work.times += 1
        work.expect(not command.hung, f"{name}: hangs")
        ended = f"{name}, {victim} {moment}, ends with {command.code}: {command.last}"
        if command.code:
            work.expect(command.code == 1 and "DataLoader worker" in command.text, ended)
        work.expect(not has_traceback(command.text), f"{ended} (with a traceback)")
        kinds["ended" if command.code else "completed"] += 1
        saved = _check_resumed(work, name, command, -1)
        command.end()
        resumed = work.finish(name, dialect, workers=2)
        _check_resumed(work, name, resumed, saved)
    return stated(work.times, "workers killed, nothing saved lost", kinds)


def kill_worker() -> None:
    """Kill one of this process's workers, and wait until the system has told about it."""
    for child in multiprocessing.active_children()[:1]:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        time.sleep(0.2)
