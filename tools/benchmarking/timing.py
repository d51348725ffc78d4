"""Timing in turns, A B C A B C ..., so that a slow moment of the machine affects all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import TypeVar

import torch

Name = TypeVar("Name", bound=Hashable)
Clock = Callable[[], float]
Stopwatch = Callable[[], float]  # runs something and returns its seconds


@dataclass(frozen=True)
class Spread:
    """The median of some numbers, between their quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        if len(numbers) == 1:
            return cls(numbers[0], numbers[0], numbers[0])
        low, _, high = quantiles(numbers, n=4, method="inclusive")
        return cls(median(numbers), low, high)


def device_clock(device: str) -> Clock:
    """Return a clock in seconds that waits for the work of the device."""
    if device == "cpu":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def stopwatch(call: Callable[[], object], clock: Clock) -> Stopwatch:
    """Wrap ``call`` so that it returns its seconds."""

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
    """Return the seconds of every run in every round; the runs take turns.

    Args:
        runs: Stopwatches by name, in the order of their turns.
        rounds: Number of rounds, each with one turn of every run.
        warmup: Number of rounds before, which are not kept.
        time_limit: Seconds after which no further round begins; at least three rounds are run, or
            ``rounds`` if that is fewer.
        clock: Clock for the time limit alone.
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


def in_milliseconds(seconds: Mapping[Name, Sequence[float]]) -> dict[Name, list[float]]:
    return {name: [1e3 * one for one in own] for name, own in seconds.items()}


def paired(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Return the median and quartiles of the ratios of each round.

    Unlike the ratio of two medians, it does not change when the machine is slow for some rounds.
    """
    return Spread.of([a / b for a, b in zip(numerators, denominators, strict=True)])


def fastest(times: Mapping[Name, Sequence[float]], among: Sequence[Name]) -> Name | None:
    """Return the name with the smallest median; None if ``among`` is empty."""
    return min(among, key=lambda name: median(times[name]), default=None)
