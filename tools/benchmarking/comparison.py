"""One comparison from building to ratios: who differs is not timed, who is timed takes turns."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from benchmarking.candidates import Candidate, build, unfit
from benchmarking.checks import TOLERANCES, Checker
from benchmarking.floor import Floor
from benchmarking.machine import describe
from benchmarking.memory import in_process_of_its_own, peak_of
from benchmarking.runs import runner
from benchmarking.settings import Setting
from benchmarking.timing import Spread, Stopwatch, alternate, device_clock, fastest, paired
from benchmarking.timing import stopwatch as timed
from benchmarking.weights import random_backbone, random_images
from swinv2_backbone import SwinV2

FLOOR = "floor"


@dataclass(frozen=True)
class Plan:
    """How thoroughly to measure.

    Attributes:
        rounds: turns of everyone that are kept.
        warmup: turns before.
        time_limit: seconds for the rounds of one setting; None: no limit.
        memory_by: the script that measures memory in processes of its own; None: no memory.
    """

    rounds: int = 9
    warmup: int = 1
    time_limit: float | None = None
    memory_by: Path | None = None


@dataclass
class Contest:
    """Those who may be timed in a setting, and what is known of the others.

    Attributes:
        models: by name.
        checks: difference from the reference, where and from what, by name.
        left_out: why someone has no place here, by name; no fault.
        failed: why someone is not timed, by name.
    """

    models: dict[str, nn.Module] = field(default_factory=dict)
    checks: dict[str, dict] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def compare(setting: Setting, candidates: Sequence[Candidate], plan: Plan) -> dict:
    """All numbers of one setting as JSON content."""
    torch.set_num_threads(setting.threads)
    torch._dynamo.reset()  # of the shapes before, or it would soon refuse to compile another
    contest = admit(setting, candidates, random_backbone(setting))
    seconds, ways = time_in_turns(setting, contest.models, plan)
    timed_ones = [c for c in candidates if c.name in contest.models]
    memory = {}
    if plan.memory_by and setting.device == "cuda":  # its allocator tells, whatever else is there
        memory = {name: _peak(model, setting) for name, model in contest.models.items()}
    contest.models.clear()
    gc.collect()
    if plan.memory_by and setting.device == "cpu":
        memory = {c.name: in_process_of_its_own(plan.memory_by, c, setting) for c in timed_ones}
    return {
        "setting": setting.as_json(),
        "machine": describe(setting.device, setting.threads),
        "candidates": summarise(seconds, timed_ones, memory, contest.checks),
        "floor": {
            "seconds": seconds[FLOOR],
            "spread": Spread.of(seconds[FLOOR]).as_json(),
            "ways": ways,
        },
        "left_out": contest.left_out,
        "failed": contest.failed,
    }


def admit(setting: Setting, candidates: Sequence[Candidate], weights: SwinV2) -> Contest:
    """Build everyone and compare their features; whoever is wrong or fails is told apart."""
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
            if setting.training:  # whose backward pass may fail, too
                runner(model, random_images(setting), setting)()
                model.zero_grad(set_to_none=True)
        except Exception as error:  # noqa: BLE001 - of foreign code, which may raise anything
            contest.failed[candidate.name] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        contest.checks[candidate.name] = found
        if found["difference"] <= TOLERANCES[setting.dtype]:
            contest.models[candidate.name] = model
        else:
            contest.failed[candidate.name] = (
                f"its features differ from {found['to']} by {found['difference']:.1e} at "
                f"{found['at']}, allowed are {TOLERANCES[setting.dtype]:.0e}"
            )
    return contest


def time_in_turns(
    setting: Setting, models: Mapping[str, nn.Module], plan: Plan
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds of every round by name, the floor among them, and the ways that the floor took."""
    images, clock = random_images(setting), device_clock(setting.device)
    runs: dict[str, Stopwatch] = {
        name: _without_traces(timed(runner(model, images, setting), clock), model)
        for name, model in models.items()
    }
    floor = Floor(setting)
    runs[FLOOR] = floor.run
    progress(f"  timing {', '.join(runs)}")
    seconds = alternate(runs, plan.rounds, warmup=plan.warmup, time_limit=plan.time_limit)
    return seconds, {str(product): way for product, (way, _) in floor.chosen.items()}


def _peak(model: nn.Module, setting: Setting) -> dict[str, int | str]:
    run = runner(model, random_images(setting), setting)
    run()  # what is kept from then on is no part of the next
    model.zero_grad(set_to_none=True)
    found = peak_of(run, setting.device)
    model.zero_grad(set_to_none=True)
    return found


def _without_traces(run: Stopwatch, model: nn.Module) -> Stopwatch:
    """The gradients of one candidate are not to stand in the memory of the next."""

    def cleared() -> float:
        seconds = run()
        model.zero_grad(set_to_none=True)
        return seconds

    return cleared


def summarise(
    seconds: Mapping[str, list[float]],
    candidates: Sequence[Candidate],
    memory: Mapping[str, dict],
    checks: Mapping[str, dict],
) -> dict[str, dict]:
    """What is known of every candidate that was timed, by name.

    ``speedup_over_eager`` is the time of the fastest eager peer divided by one's own, of each
    round; ``memory_ratio`` one's own peak divided by that of the leanest eager peer.
    """
    eager = fastest(seconds, [c.name for c in candidates if c.is_eager_peer])
    compiled = fastest(seconds, [c.name for c in candidates if c.is_peer and c.compiled])
    leanest = min(
        (memory[c.name]["bytes"] for c in candidates if c.is_eager_peer and _known(memory, c)),
        default=None,
    )
    found = {}
    for candidate in candidates:
        own = seconds[candidate.name]
        found[candidate.name] = {
            "seconds": own,
            "spread": Spread.of(own).as_json(),
            "speedup_over_eager": _ratio(seconds, eager, candidate.name),
            "speedup_over_compiled": _ratio(seconds, compiled, candidate.name),
            "floor_over_actual": _ratio(seconds, FLOOR, candidate.name),
            "check": checks[candidate.name],
            "memory": memory.get(candidate.name),
            "memory_ratio": (
                memory[candidate.name]["bytes"] / leanest
                if leanest and _known(memory, candidate)
                else None
            ),
        }
    return found


def _known(memory: Mapping[str, dict], candidate: Candidate) -> bool:
    return "bytes" in memory.get(candidate.name, {})


def _ratio(seconds: Mapping[str, list[float]], of: str | None, to: str) -> dict | None:
    if of not in seconds:
        return None
    return {"of": of} | paired(seconds[of], seconds[to]).as_json()


def progress(message: str) -> None:
    """To standard error, as standard output is for results."""
    print(message, file=sys.stderr, flush=True)
