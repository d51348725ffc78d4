"""Jobs for the tests of tools/experiments/jobs.py, whose processes import nothing more."""

from __future__ import annotations

from pathlib import Path


def work(folder: Path, *, number: int) -> dict:
    with (folder / "calls.txt").open("a") as calls:
        calls.write(f"{number}\n")
    if number < 0:
        raise ValueError(number)
    return {"twice": 2.0 * number}
