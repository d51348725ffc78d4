"""Clocks that jump during a training and between trainings."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reliability.judging import started_from
from reliability.processes import Prepare, around
from reliability.work import Work
from swinv2_backbone.checkpoints import durable
from swinv2_backbone.d2.engine.step import TrainingStep

DAY = 86_400.0
JUMPS = {"+1 day": DAY, "-10 years": -3652 * DAY}


def jumping(seconds: float, steps: int) -> Prepare:
    """Return a function that lets the clock and the times of files jump after some steps."""

    def prepare() -> None:
        clock, done = time.time, 0
        set_clock = lambda: seconds if done >= steps else 0.0  # noqa: E731
        time.time = lambda: clock() + set_clock()

        def step(original: Callable, *args: Any) -> None:
            nonlocal done
            original(*args)
            done += 1

        def put(original: Callable, partial: Path, path: Path) -> None:
            original(partial, path)
            os.utime(path, (time.time(), time.time()))

        around(TrainingStep, "run_step", step)
        around(durable, "_put_in_place", put)

    return prepare


def jumps(work: Work) -> str:
    """Let the clock jump: the right checkpoint is resumed, and a time limit stays."""
    for title, seconds in JUMPS.items():
        during, between = f"during{title.split()[0]}", f"between{title.split()[0]}"
        _killed_after(work, during, "model_0000005", jumping(seconds, 4))
        _resumes_from(work, during, 6)
        _killed_after(work, between, "model_0000005", None)
        _killed_after(work, between, "model_0000008", jumping(seconds, 0), "--resume")
        _resumes_from(work, between, 9)
        limited = work.train(f"limited{title.split()[0]}", prepare=jumping(seconds, 4), minutes=2)
        work.ends_equal(limited, f"limited{title.split()[0]}")
        work.times += 3
    return f"{work.times} jumps ({', '.join(JUMPS)}), the right checkpoint, bitwise equal"


def _killed_after(
    work: Work, name: str, checkpoint: str, prepare: Prepare | None, *flags: str
) -> None:
    command = work.train(name, "yaml", *flags, prepare=prepare)
    saved = command.wait_for(f"/save {checkpoint}")
    work.expect(saved, f"{name}: {checkpoint} was not saved: {command.last}")
    command.kill()


def _resumes_from(work: Work, name: str, iteration: int) -> None:
    command = work.finish(name)
    begin = started_from(command.text)
    work.expect(begin == iteration, f"{name}: resumed from {begin}, not {iteration}")
