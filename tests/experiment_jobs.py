"""Jobs for the tests of tools/experiments/jobs.py, whose processes import nothing more."""

from __future__ import annotations

import time
from pathlib import Path


def work(folder: Path, *, number: int) -> dict:
    with (folder / "calls.txt").open("a") as calls:
        calls.write(f"{number}\n")
    if number < 0:
        raise ValueError(number)
    return {"twice": 2.0 * number}


def take_time(folder: Path, *, number: int) -> dict:
    """Record when the job begins and ends; the first two end when both have begun."""
    begun = time.monotonic()
    (folder / f"begun{number}").touch()
    while number < 2 and not (folder / f"begun{1 - number}").exists():
        time.sleep(0.01)
    time.sleep(0.5)
    return {"begun": begun, "ended": time.monotonic()}
