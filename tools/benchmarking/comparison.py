"""One comparison: candidates with correct features take turns; others are not timed."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from benchmarking.candidates import Candidate, build, unfit
from benchmarking.checks import TOLERANCES, Check, Checker
from benchmarking.floor import Floor
from benchmarking.machine import describe
from benchmarking.memory import Peak, in_process_of_its_own, peak_of, peak_or_error
from benchmarking.results import Content
from benchmarking.runs import runner
from benchmarking.settings import Setting
from benchmarking.timing import Stopwatch, alternate, device_clock, in_milliseconds
from benchmarking.timing import stopwatch as timed
from benchmarking.weights import random_backbone, random_images
from swinv2_backbone import SwinV2

FLOOR = "floor"


@dataclass(frozen=True)
class Plan:
    """The extent of a measurement.

    Attributes:
        rounds: Timed turns of every candidate.
        warmup: Untimed turns before them.
        time_limit: Seconds for the rounds of one setting; None: no limit.
        memory_by: The script that measures memory in separate processes; None: no measurement.
    """

    rounds: int = 9
    warmup: int = 1
    time_limit: float | None = None
    memory_by: Path | None = None


@dataclass
class Contest:
    """The candidates to time at a setting, and the reasons why others are not timed.

    Attributes:
        models: The candidates to time, by name.
        checks: Their comparison with the reference, by name.
        left_out: Why a candidate does not apply to the setting, by name; not a failure.
        failed: Why a candidate is not timed, by name.
    """

    models: dict[str, nn.Module] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def compare(setting: Setting, candidates: Sequence[Candidate], plan: Plan) -> Content:
    """Compare the candidates at one setting; return the content of a result."""
    torch.set_num_threads(setting.threads)
    torch._dynamo.reset()  # the shapes of earlier settings count toward its recompile limit
    contest = admit(setting, candidates, random_backbone(setting))
    ms = time_in_turns(setting, contest.models, plan)
    timed_ones = [c for c in candidates if c.name in contest.models]
    memory: dict[str, Peak] = {}
    if plan.memory_by and setting.device == "cuda":  # its allocator ignores other models
        memory = {name: _peak(model, setting) for name, model in contest.models.items()}
    contest.models.clear()
    gc.collect()
    if plan.memory_by and setting.device == "cpu":
        memory = {c.name: in_process_of_its_own(plan.memory_by, c, setting) for c in timed_ones}
    return {
        "setting": setting.as_json(),
        "machine": describe(setting.device, setting.threads),
        "candidates": {
            candidate.name: {
                "ms": ms[candidate.name],
                "memory": peak_or_error(memory.get(candidate.name)),
                "difference": contest.checks[candidate.name].difference,
                "at": contest.checks[candidate.name].at,
            }
            for candidate in timed_ones
        },
        "floor": ms[FLOOR],
        "left_out": contest.left_out,
        "failed": contest.failed,
    }


def admit(setting: Setting, candidates: Sequence[Candidate], weights: SwinV2) -> Contest:
    """Build every candidate and compare its features; set aside those that are wrong or fail."""
    contest, checker = Contest(), Checker(setting, weights)
    for candidate in candidates:
        reason = unfit(candidate, setting)
        if reason:
            contest.left_out[candidate.name] = reason
            continue
        progress(f"  checking {candidate.name}")
        try:
            model = build(candidate, setting, weights)
            found = checker.check(candidate, model)
            if setting.training:  # the backward may fail, too
                runner(model, random_images(setting), setting)()
                model.zero_grad(set_to_none=True)
        except Exception as error:  # noqa: BLE001 - foreign code may raise anything
            contest.failed[candidate.name] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        contest.checks[candidate.name] = found
        if found.difference <= TOLERANCES[setting.dtype]:
            contest.models[candidate.name] = model
        else:
            contest.failed[candidate.name] = (
                f"its features differ from {found.to} by {found.difference:.1e} at "
                f"{found.at}, more than {TOLERANCES[setting.dtype]:.0e}"
            )
    return contest


def time_in_turns(
    setting: Setting, models: Mapping[str, nn.Module], plan: Plan
) -> dict[str, list[float]]:
    """Return the milliseconds of every round by name, including those of the floor."""
    images, clock = random_images(setting), device_clock(setting.device)
    runs: dict[str, Stopwatch] = {
        name: _without_traces(timed(runner(model, images, setting), clock), model)
        for name, model in models.items()
    }
    runs[FLOOR] = Floor(setting).run
    progress(f"  timing {', '.join(runs)}")
    seconds = alternate(runs, plan.rounds, warmup=plan.warmup, time_limit=plan.time_limit)
    return in_milliseconds(seconds)


def _peak(model: nn.Module, setting: Setting) -> Peak:
    run = runner(model, random_images(setting), setting)
    run()  # fills caches, which do not count
    model.zero_grad(set_to_none=True)
    found = peak_of(run, setting.device)
    model.zero_grad(set_to_none=True)
    return found


def _without_traces(run: Stopwatch, model: nn.Module) -> Stopwatch:
    """Free the gradients of one candidate before the next runs."""

    def cleared() -> float:
        seconds = run()
        model.zero_grad(set_to_none=True)
        return seconds

    return cleared


def progress(message: str) -> None:
    """Print to standard error; standard output is for results."""
    print(message, file=sys.stderr, flush=True)
