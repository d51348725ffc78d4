"""Signals at start-up, and a second one while the first is handled."""

from __future__ import annotations

import signal
import time
from collections import Counter

from reliability.judging import has_traceback
from reliability.processes import Command
from reliability.scene import DIALECTS
from reliability.work import Work, stated

CODES = {  # as subprocess gives them; a shell reports -15 as 143
    signal.SIGINT: (130, -signal.SIGINT),
    signal.SIGTERM: (143, -signal.SIGTERM),
}
ENDLESS = 10_000  # iterations
PYTHON = 0.1  # seconds in which Python itself starts


def at_start_up(work: Work) -> str:
    """Stop fresh processes before their first iteration: nothing is saved, nothing is dumped."""
    stages = Counter[str]()
    begun = time.monotonic()
    whole = work.fresh("whole", iterations=ENDLESS)
    assert whole.wait_for_text("Starting training from"), whole.text
    takes = time.monotonic() - begun
    whole.end()
    moments = sorted(work.chance.uniform(PYTHON, takes) for _ in range(24 if work.full else 12))
    for number, moment in enumerate(moments):
        kind = tuple(CODES)[number % 2]
        name = f"start{number}"
        command = work.fresh(name, iterations=ENDLESS)
        command.wait_until(moment)
        command.send(kind)
        told = f"{name}, {kind.name} after {moment:.2f} s of {takes:.2f}"
        _check_stopped(work, command, kind, told)
        stopped = "stopped after iteration" in command.text
        saved = [path.name for path in (work.folder / name).glob("*.pth")]
        work.expect(stopped or not saved, f"{told}: saved {saved} before an iteration")
        stages["in the first iterations" if stopped else "before"] += 1
    return stated(work.times, "signals at start-up", stages)


def second_one(work: Work) -> str:
    """Send Ctrl-C twice: the second one ends the training at once, and nothing is dumped."""
    for number in range(24 if work.full else 12):
        name, dialect = f"twice{number}", DIALECTS[number % 2]
        command = work.train(name, dialect, workers=number // 2 % 2 * 2)
        event = work.chance.choice(["config", "step", "save", "evaluation"])
        command.wait_for(event)
        for limit in (0.02, 0.1):
            command.wait_until(work.chance.uniform(0, limit))
            command.send(signal.SIGINT, group=number % 2 == 0)  # as a terminal does
        _check_stopped(work, command, signal.SIGINT, f"{name}, in {event}")
        command.end()
        work.finish(name, dialect)
    return stated(work.times, "times Ctrl-C twice, resumed bitwise equal")


def _check_stopped(work: Work, command: Command, kind: signal.Signals, told: str) -> None:
    code = command.wait()
    work.times += 1
    work.expect(not command.hung, f"{told}: hangs")
    work.expect(code in CODES[kind], f"{told}: ends with {code}: {command.last}")
    work.expect(not has_traceback(command.text), f"{told}: a traceback")
