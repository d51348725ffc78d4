"""An output folder on a network file system, as its faults appear to a process."""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

from reliability.kills import LENGTH, MOMENTS, killed_run
from reliability.processes import around
from reliability.work import Work, stated

STALE = 2.0  # seconds for which a listing hides what another process has written
BUSY = 1.0  # seconds for which a file is open elsewhere, so that it cannot be replaced
ERRORS = (errno.EBUSY, errno.EACCES)


def network() -> None:
    """Let this process see stale listings and times, and files that cannot be replaced at once."""
    begun, own, refused = time.time(), set[str](), dict[str, float]()

    def glob(original: Callable, folder: Path, pattern: str) -> Iterator[Path]:
        fresh = min(time.time() - STALE, begun)
        for path in original(folder, pattern):
            if path.name in own or path.suffix != ".pth" or path.stat().st_mtime < fresh:
                yield path

    def replace(original: Callable, source: Any, target: Any) -> None:
        name = Path(target).name
        first = refused.setdefault(f"{source}", time.monotonic())
        if Path(target).exists() and time.monotonic() - first < BUSY:
            number = ERRORS[len(refused) % 2]
            raise OSError(number, os.strerror(number), str(target))
        original(source, target)
        own.add(name)

    around(Path, "glob", glob)
    around(os, "replace", replace)


def network_folder(work: Work) -> str:
    """Kill and resume trainings whose folder is on such a file system."""
    kills, runs, wanted = Counter[str](), 0, 40 if work.full else 8
    moments = cycle(MOMENTS)
    while kills.total() < wanted:
        runs += 1
        changes = {"workers": 0, "iterations": LENGTH}
        left = wanted - kills.total()
        kills += killed_run(work, f"run{runs}", "yaml", moments, left, changes, network)
    work.times = kills.total()
    return stated(work.times, f"kills of {runs} trainings, bitwise equal", kills)
