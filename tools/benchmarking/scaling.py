"""How time grows with pixels, with padding and with threads: one candidate at several settings.

The settings take turns, as candidates do elsewhere, and ratios are of each round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarking.candidates import Candidate
from benchmarking.comparison import Plan, admit, progress
from benchmarking.machine import describe
from benchmarking.runs import runner
from benchmarking.settings import Setting, nearest_whole
from benchmarking.timing import Spread, Stopwatch, alternate, device_clock, paired, stopwatch
from benchmarking.weights import random_backbone, random_images
from swinv2_backbone.windows import Size

SIDES = (512, 1024, 1536, 2048)  # of the square images whose cost is to be linear
PADDED: Size = (800, 1333)
THREADS = (1, 2)


def linear_cost(setting: Setting) -> list[Setting]:
    """Squares of growing sides at the setting's window."""
    return [replace(setting, size=(side, side)) for side in SIDES]


def padding_cost(setting: Setting) -> list[Setting]:
    """The nearest size of whole windows, then one that needs padding."""
    padded = replace(setting, size=PADDED)
    return [nearest_whole(padded), padded]


def threads_scaling(setting: Setting) -> list[Setting]:
    return [replace(setting, threads=threads) for threads in THREADS]


def scale(settings: Sequence[Setting], candidate: Candidate, plan: Plan) -> dict:
    """Seconds and nanoseconds a pixel at every setting, and the latter over those of the first."""
    runs: dict[Setting, Stopwatch] = {}
    failed = {}
    for setting in settings:
        contest = admit(setting, [candidate], random_backbone(setting))
        failed |= {f"{candidate.name} at {setting}": why for why in contest.failed.values()}
        for model in contest.models.values():
            runs[setting] = _with_threads(model, setting)
    progress(f"  timing {len(runs)} settings")
    seconds = alternate(runs, plan.rounds, warmup=plan.warmup, time_limit=plan.time_limit)
    return {
        "candidate": candidate.name,
        "setting": settings[0].as_json(),
        "machine": describe(settings[0].device, max(setting.threads for setting in settings)),
        "rows": _rows(seconds),
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


def _rows(seconds: dict[Setting, list[float]]) -> list[dict]:
    a_pixel = {
        setting: [1e9 * one / setting.pixels for one in own] for setting, own in seconds.items()
    }
    first = next(iter(a_pixel.values()), [])
    return [
        {
            "setting": setting.as_json(),
            "seconds": seconds[setting],
            "spread": Spread.of(seconds[setting]).as_json(),
            "nanoseconds_a_pixel": Spread.of(own).as_json(),
            "over_first": paired(own, first).as_json(),
        }
        for setting, own in a_pixel.items()
    ]
