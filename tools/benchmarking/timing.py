"""Times in turn, A B C A B C ..., so that what the machine does meanwhile meets all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import TypeVar

import torch

Name = TypeVar("Name", bound=Hashable)
Clock = Callable[[], float]
Stopwatch = Callable[[], float]  # does its work, returns the seconds that it took


@dataclass(frozen=True)
class Spread:
    """The median of some numbers, between their quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        if len(numbers) == 1:
            return cls(*numbers * 3)
        low, _, high = quantiles(numbers, n=4, method="inclusive")
        return cls(median(numbers), low, high)

    def as_json(self) -> dict[str, float]:
        return asdict(self)


def device_clock(device: str) -> Clock:
    """Seconds, after all that was begun on the device is done."""
    if device == "cpu":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def stopwatch(call: Callable[[], object], clock: Clock) -> Stopwatch:
    """A run of ``call`` as something that tells its seconds."""

    def run() -> float:
        start = clock()
        call()
        return clock() - start

    return run


def alternate(
    runs: Mapping[Name, Stopwatch],
    rounds: int,
    *,
    warmup: int = 1,
    time_limit: float | None = None,
    clock: Clock = time.perf_counter,
) -> dict[Name, list[float]]:
    """The seconds of every run in every round; the runs take turns.

    Args:
        runs: by name, in the order of their turns.
        rounds: of one turn each.
        warmup: rounds before, which are not kept.
        time_limit: seconds after which no further round begins; three there always are, or as
            many as ``rounds`` if that is fewer.
        clock: only tells when the time is up.
    """
    for _ in range(warmup):
        for run in runs.values():
            run()
    seconds: dict[Name, list[float]] = {name: [] for name in runs}
    start = clock()
    for number in range(rounds):
        if number >= 3 and time_limit is not None and clock() - start > time_limit:
            break
        for name, run in runs.items():
            seconds[name].append(run())
    return seconds


def paired(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """The ratio of each round, then the median and quartiles of those.

    Unlike the ratio of two medians it is not moved by a machine that is slow for some rounds.
    """
    return Spread.of([a / b for a, b in zip(numerators, denominators, strict=True)])


def fastest(seconds: Mapping[Name, Sequence[float]], among: Sequence[Name]) -> Name | None:
    """The name with the least median; None if there is none."""
    return min(among, key=lambda name: median(seconds[name]), default=None)
