"""What is measured and kept: jobs of five kinds, and the JSON file of their results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarking.attention import compare_attention
from benchmarking.candidates import Candidate
from benchmarking.comparison import Plan, compare, progress
from benchmarking.detector import BUILDERS, compare_detectors
from benchmarking.machine import describe, one_line
from benchmarking.quantised import compare_quantised
from benchmarking.scaling import scale
from benchmarking.settings import Setting

COMPARISON, SCALING, DETECTOR, INT8 = "comparison", "scaling", "detector", "int8"
ATTENTION = "attention"


@dataclass(frozen=True)
class Job:
    """A piece of work of some minutes with a result to keep.

    Attributes:
        kind: COMPARISON, SCALING, DETECTOR, INT8 or ATTENTION.
        section: the heading under which the result is shown.
        what: what makes it another job than the others of its kind, in words.
        turns: the setting of everyone who takes turns in it.
        work: returns the result as JSON content.
    """

    kind: str
    section: str
    what: str
    turns: tuple[Setting, ...]
    work: Callable[[], dict]

    @property
    def key(self) -> str:
        """Of its result: the same work on another machine is another result."""
        first = self.turns[0]
        machine = one_line(describe(first.device, first.threads))
        return f"{self.kind} | {self.what} | {machine}"


def comparison(
    setting: Setting, candidates: Sequence[Candidate], plan: Plan, section: str = "Comparison"
) -> Job:
    what = f"{setting} | {' '.join(candidate.name for candidate in candidates)}"
    turns = (setting,) * len(candidates)
    return Job(COMPARISON, section, what, turns, lambda: compare(setting, candidates, plan))


def scaling(settings: Sequence[Setting], candidate: Candidate, plan: Plan, section: str) -> Job:
    what = f"{section} | {settings[0]} | {candidate.name}"
    turns = tuple(settings)
    return Job(SCALING, section, what, turns, lambda: scale(settings, candidate, plan))


def detector(setting: Setting, plan: Plan, section: str = "Detectors") -> Job:
    turns = (setting,) * len(BUILDERS)
    return Job(DETECTOR, section, str(setting), turns, lambda: compare_detectors(setting, plan))


def int8(setting: Setting, plan: Plan, section: str = "int8") -> Job:
    turns = (setting,) * 3
    return Job(INT8, section, str(setting), turns, lambda: compare_quantised(setting, plan))


def attention(setting: Setting, section: str = "Attention of the first stage") -> Job:
    return Job(ATTENTION, section, str(setting), (setting,), lambda: compare_attention(setting))


class Results:
    """Results by key, in a file that is written after every job; without a file, in memory.

    Raises:
        ValueError: the file is there and is not one of these.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self._by_key: dict[str, dict] = {}
        if path is not None and path.exists():
            try:
                self._by_key = {one["key"]: one for one in json.loads(path.read_text())["results"]}
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(f"{path} has no results of this tool: {error}") from error

    def measure(self, jobs: Sequence[Job], again: bool) -> Iterator[dict]:
        """The result of every job in turn; what is there is measured anew only if ``again``."""
        for number, job in enumerate(jobs, 1):
            progress(f"[{number}/{len(jobs)}] {job.section}: {job.what}")
            if again or job.key not in self._by_key:
                found = {"key": job.key, "kind": job.kind, "section": job.section}
                self._by_key[job.key] = found | job.work()
                self._write()
            yield self._by_key[job.key]

    def _write(self) -> None:
        if self.path is not None:
            content = json.dumps({"results": list(self._by_key.values())}, indent=1)
            beside = self.path.with_name(self.path.name + ".part")
            beside.write_text(content + "\n", encoding="utf-8")
            beside.replace(self.path)
