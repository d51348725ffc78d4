"""Trainings of two processes: one is stopped for a while, or killed in a save."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from reliability.judging import unreadable
from reliability.kills import LENGTH
from reliability.processes import Command
from reliability.work import Work, stated

TWO = ("--num-gpus", "2")
# Each evaluation of such a training starts its workers anew, as new Python processes.
RARELY = {"workers": 2, "evaluate": 1000}
TOGETHER = 60.0  # seconds in which all processes end after one was killed


def children(process: int) -> list[int]:
    """Return the processes that a process has started and that run Python, from old to new."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    return [int(one) for one in found if b"resource_tracker" not in _line(int(one))]


def _line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def stopped(work: Work) -> str:
    """Stop one of two processes, a worker, and a whole session for a while, then continue."""
    seconds, kinds = 120.0 if work.full else 20.0, Counter[str]()
    two = _whole_of_two(work, iterations=LENGTH)
    changes: dict[str, Any] = {"iterations": LENGTH, "workers": 2}
    command = work.fresh("process", *TWO, **changes | RARELY)
    command.wait_for_text("Starting training from")
    _stop(command, children(command.process)[-1:], seconds)
    work.ends_equal(command, "process", reference=two)
    kinds["of one of two processes"] += 1
    for name in ("worker", "session"):
        alone = work.train(name, **changes)
        alone.wait_for("step")
        _stop(alone, children(alone.process)[:1] if name == "worker" else [], seconds)
        work.ends_equal(alone, name, **changes)
        kinds[f"of a {name}"] += 1
    work.times = kinds.total()
    return stated(work.times, f"stops of {seconds:.0f} s, bitwise equal", kinds)


def _stop(command: Command, processes: list[int], seconds: float) -> None:
    """Stop some processes of a command, or all, and continue them."""
    for number in (signal.SIGSTOP, signal.SIGCONT):
        if processes:
            for process in processes:
                os.kill(process, number)
        else:
            command.send(number, group=True)
        if number == signal.SIGSTOP:
            time.sleep(seconds)


def _whole_of_two(work: Work, **changes: Any) -> Path:
    command = work.fresh("whole_two", *TWO, **changes)
    assert command.wait() == 0, command.text
    return work.folder / "whole_two"


def rank_killed_in_save(work: Work) -> str:
    """Kill one of two processes while a checkpoint is written: all end, and nothing is lost."""
    two, longest = _whole_of_two(work), 0.0
    for number in range(8 if work.full else 4):
        name = f"rank{number}"
        command = work.fresh(name, *TWO)
        if not _wait_for_save(
            command, work.folder / name, f"model_000000{(2, 5)[number // 2 % 2]}"
        ):
            work.expect(False, f"{name}: no save was seen: {command.last}")
            continue
        members = children(command.process)
        os.kill(members[number % 2], signal.SIGKILL)
        begun = time.monotonic()
        command.wait(TOGETHER)
        longest = max(longest, time.monotonic() - begun)
        work.times += 1
        left = [one for one in members if _line(one)]
        told = f"{name}, process {number % 2} killed"
        work.expect(not command.hung and not left, f"{told}: {left} run after {TOGETHER:.0f} s")
        work.expect(command.code not in (0, None), f"{told}: ends with {command.code}")
        for fault in unreadable(work.folder / name):
            work.expect(False, f"{told}: {fault}")
        command.end()
        work.ends_equal(work.fresh(name, *TWO, "--resume"), name, reference=two)
    return f"{work.times} kills, all processes ended within {longest:.0f} s, resumed bitwise equal"


def _wait_for_save(command: Command, folder: Path, name: str) -> bool:
    """Return True once a file is partly written."""
    while command.running:
        if list(folder.glob(f"{name}.pth.*.partial")):
            return True
        time.sleep(0.001)
    return False
