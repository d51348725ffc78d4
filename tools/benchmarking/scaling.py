"""Time as a function of pixels, padding and threads: one candidate at several settings.

The settings take turns, as candidates do elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarking.candidates import Candidate
from benchmarking.comparison import Plan, admit, progress
from benchmarking.machine import describe
from benchmarking.results import Content
from benchmarking.runs import runner
from benchmarking.settings import Setting, nearest_whole
from benchmarking.timing import Stopwatch, alternate, device_clock, in_milliseconds, stopwatch
from benchmarking.weights import random_backbone, random_images
from swinv2_backbone.packing import Size

SIDES = (512, 1024, 1536, 2048)  # of the square images whose cost should be linear
PADDED: Size = (800, 1333)
THREADS = (1, 2)


def linear_cost(setting: Setting) -> list[Setting]:
    """Return the setting with square images of increasing sides."""
    return [replace(setting, size=(side, side)) for side in SIDES]


def padding_cost(setting: Setting) -> list[Setting]:
    """Return two settings: the nearest one without padding, then one that needs padding."""
    padded = replace(setting, size=PADDED)
    return [nearest_whole(padded), padded]


def threads_scaling(setting: Setting) -> list[Setting]:
    return [replace(setting, threads=threads) for threads in THREADS]


def scale(settings: Sequence[Setting], candidate: Candidate, plan: Plan) -> Content:
    """Time a candidate at every setting; return the content of a result."""
    runs: dict[Setting, Stopwatch] = {}
    failed: dict[str, str] = {}
    for setting in settings:
        contest = admit(setting, [candidate], random_backbone(setting))
        failed |= {f"{candidate.name} at {setting}": why for why in contest.failed.values()}
        for model in contest.models.values():
            runs[setting] = _with_threads(model, setting)
    progress(f"  timing {len(runs)} settings")
    seconds = alternate(runs, plan.rounds, warmup=plan.warmup, time_limit=plan.time_limit)
    return {
        "setting": settings[0].as_json(),
        "machine": describe(settings[0].device, max(setting.threads for setting in settings)),
        "candidate": candidate.name,
        "rows": [
            {"size": setting.size, "threads": setting.threads, "ms": ms}
            for setting, ms in in_milliseconds(seconds).items()
        ],
        "failed": failed,
    }


def _with_threads(model: torch.nn.Module, setting: Setting) -> Stopwatch:
    clock = device_clock(setting.device)
    run = stopwatch(runner(model, random_images(setting), setting), clock)

    def with_threads() -> float:
        torch.set_num_threads(setting.threads)
        seconds = run()
        model.zero_grad(set_to_none=True)
        return seconds

    return with_threads
