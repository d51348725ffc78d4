"""What a check of a dataset found: faults that stop, faults that were mended, with examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from detectron2.utils import comm
from tqdm import tqdm

EXAMPLES = 5  # of each fault
THREADS = 8
CHUNK = 64  # files a thread takes at once
BAR_FROM = 1000  # files; with fewer the wait is too short for a progress bar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Fault(NamedTuple):
    """A kind of fault, and what to do about it (or what was done)."""

    name: str
    remedy: str


@dataclass
class Finding:
    """How often a fault was met, and the first places."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)


class Report:
    """The findings about one dataset; ``str(report)`` is a text for its user.

    Args:
        source: the file or folder that was checked.
    """

    def __init__(self, source: str):
        self.source = source
        self.errors: dict[Fault, Finding] = {}
        self.mended: dict[Fault, Finding] = {}

    def error(self, fault: Fault, example: str) -> None:
        self.errors.setdefault(fault, Finding()).add(example)

    def mend(self, fault: Fault, example: str) -> None:
        self.mended.setdefault(fault, Finding()).add(example)

    def raise_errors(self) -> None:
        """Raise ValueError with the whole report if there is an error in it."""
        if self.errors:
            raise ValueError(str(self))

    def __str__(self) -> str:
        lines = []
        if self.errors:
            lines += [f"{self.source} cannot be used:", *_lines(self.errors)]
        if self.mended:
            done = "what could be mended" if self.errors else "mended"
            lines += [f"{self.source}, {done} in a copy:", *_lines(self.mended)]
        return "\n".join(lines) or f"{self.source}: nothing wrong"


def _lines(findings: dict[Fault, Finding]) -> list[str]:
    lines = []
    for fault, finding in findings.items():
        more = ", ..." if finding.count > len(finding.examples) else ""
        lines.append(f"{finding.count:8}  {fault.name}: {', '.join(finding.examples)}{more}")
        lines.append(f"{'':8}  -> {fault.remedy}")
    return lines


def for_each(
    function: Callable[[Item], Result], items: Sequence[Item], description: str
) -> list[Result]:
    """``[function(item) for item in items]``, in threads, with a progress bar if there are many.

    For work that waits for files.  An error of ``function`` ends it.
    """
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    results: list[Result] = []
    quiet = len(items) <= BAR_FROM or not comm.is_main_process()
    bar = tqdm(total=len(items), desc=description, disable=quiet)
    with bar, ThreadPoolExecutor(THREADS) as pool:
        for chunk in pool.map(lambda part: [function(item) for item in part], chunks):
            results += chunk
            bar.update(len(chunk))
    return results
