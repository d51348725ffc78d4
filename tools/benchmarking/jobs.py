"""Jobs of five kinds, each of which measures one result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarking.attention import compare_attention
from benchmarking.candidates import Candidate
from benchmarking.comparison import Plan, compare, progress
from benchmarking.detector import BUILDERS, compare_detectors
from benchmarking.machine import describe
from benchmarking.quantized import compare_quantized
from benchmarking.results import (
    ATTENTION,
    COMPARISON,
    DETECTOR,
    INT8,
    SCALING,
    Content,
    Results,
    identity,
)
from benchmarking.scaling import scale
from benchmarking.settings import Setting


@dataclass(frozen=True)
class Job:
    """A measurement of a few minutes whose result is kept.

    Attributes:
        kind: COMPARISON, SCALING, DETECTOR, INT8 or ATTENTION.
        section: The heading under which the result is shown.
        names: The candidates that distinguish it from others of its kind.
        turns: The setting of every candidate that takes turns in it.
        work: Returns the content of the result.
    """

    kind: str
    section: str
    names: tuple[str, ...]
    turns: tuple[Setting, ...]
    work: Callable[[], Content]

    @property
    def identity(self) -> str:
        """The identity of its result, which differs between machines."""
        threads = max(setting.threads for setting in self.turns)
        machine = describe(self.turns[0].device, threads)
        return identity(self.kind, self.section, self.turns[0], self.names, machine)

    def __str__(self) -> str:
        return " | ".join([self.section, str(self.turns[0]), *self.names])


def measure(jobs: Sequence[Job], results: Results, again: bool) -> Iterator[Content]:
    """Yield the result of every job; existing ones are measured anew only if ``again``."""
    for number, job in enumerate(jobs, 1):
        progress(f"[{number}/{len(jobs)}] {job}")
        known = None if again else results.find(job.identity)
        yield known or results.add({"kind": job.kind, "section": job.section} | job.work())


def comparison(
    setting: Setting, candidates: Sequence[Candidate], plan: Plan, section: str = "Comparison"
) -> Job:
    names = tuple(candidate.name for candidate in candidates)
    turns = (setting,) * len(candidates)
    return Job(COMPARISON, section, names, turns, lambda: compare(setting, candidates, plan))


def scaling(settings: Sequence[Setting], candidate: Candidate, plan: Plan, section: str) -> Job:
    names, turns = (candidate.name,), tuple(settings)
    return Job(SCALING, section, names, turns, lambda: scale(settings, candidate, plan))


def detector(setting: Setting, plan: Plan, section: str = "Detectors") -> Job:
    turns = (setting,) * len(BUILDERS)
    return Job(DETECTOR, section, (), turns, lambda: compare_detectors(setting, plan))


def int8(setting: Setting, plan: Plan, section: str = "int8") -> Job:
    turns = (setting,) * 3
    return Job(INT8, section, (), turns, lambda: compare_quantized(setting, plan))


def attention(setting: Setting, section: str = "Attention of the first stage") -> Job:
    return Job(ATTENTION, section, (), (setting,), lambda: compare_attention(setting))
