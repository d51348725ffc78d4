"""Images a second of ``swinv2 predict --shards`` with one process and with several, in turns.

Every process computes on the same number of threads, its share of all; one process is also timed
on all of them.  The rate is that of the last line of progress, which counts from the moment
when the model is loaded.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarking.comparison import progress
from swinv2_backbone.d2.inference.inputs import find_inputs

SHARDS = 10  # for each process, so that none waits long for another at the end
RATE = re.compile(r"([\d.]+) images/s")
Measure = Callable[[int, int], float]  # (processes, threads of each) -> images a second


def compare(
    source: str,
    weights: str | None,
    images: str,
    count: int,
    processes: int,
    threads: int,
    rounds: int,
) -> str:
    """Return a table of medians over ``rounds`` turns.

    Args:
        source, weights: see :func:`swinv2_backbone.load`.
        images: folder of images, of which the first ``count`` are predicted.
        threads: number of threads that all processes together compute on.
    """
    files = find_inputs([images]).files[:count]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        listed = work / "images.txt"
        listed.write_text("\n".join(str(file.resolve()) for file in files), encoding="utf-8")
        shard = max(1, len(files) // (SHARDS * processes))

        def measure(number: int, each: int) -> float:
            with tempfile.TemporaryDirectory(dir=work) as results:
                options = ["--input", str(listed), "--shards", str(Path(results) / "shards")]
                options += ["--shard-size", str(shard)]
                options += ["MODEL.WEIGHTS", weights] if weights else []
                return _rate(number, each, [source, *options])

        title = f"{len(files)} images, {rounds} rounds"
        return "\n".join([title, *table(processes, max(1, threads // processes), rounds, measure)])


def table(processes: int, threads: int, rounds: int, measure: Measure) -> list[str]:
    """Return the lines of the table: processes, threads of each, images a second, and ratio."""
    ways = list(dict.fromkeys([(1, threads), (1, threads * processes), (processes, threads)]))
    rates: dict[tuple[int, int], list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, found in rates.items():
            found.append(measure(*way))
            progress(f"{way[0]} processes of {way[1]} threads: {found[-1]:.2f} images/s")
    lines = ["| processes | threads of each | images/s | ratio |", "|---|---|---|---|"]
    for (number, each), found in rates.items():
        ratio = median(one / base for one, base in zip(found, rates[ways[0]]))
        lines.append(f"| {number} | {each} | {median(found):.2f} | {ratio:.2f} |")
    return lines


def _rate(processes: int, threads: int, words: list[str]) -> float:
    """Return the images a second of one run.

    Raises:
        ValueError: it failed.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *launcher, "-m", "swinv2_backbone", "predict", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    written = ended.stdout + ended.stderr
    rates = RATE.findall(written)
    if ended.returncode or not rates:
        raise ValueError(f"swinv2 predict failed:\n{written[-2000:]}")
    return float(rates[-1])
