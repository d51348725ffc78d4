"""The report of a dataset check: faults that stop a training, repairs and notes, with examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from detectron2.utils import comm
from tqdm import tqdm

EXAMPLES = 5  # of each fault
THREADS = 8
CHUNK = 64  # files that a thread takes at once
BAR_FROM = 1000  # files; with fewer the wait is too short for a progress bar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Fault(NamedTuple):
    """A kind of fault, and its remedy (or the repair that was made)."""

    name: str
    remedy: str


class FaultError(Exception):
    """A fault in one annotation; ``detail`` may hold the offending value."""

    def __init__(self, fault: Fault, detail: str = ""):
        super().__init__(fault, detail)
        self.fault, self.detail = fault, detail


@dataclass
class Finding:
    """The number of occurrences of a fault, and the first places."""

    count: int = 0
    examples: list[str] = field(default_factory=list)
    more: bool = False  # places that are not among the examples

    def under(self, name: str) -> str:
        """Return "NAME (COUNT): EXAMPLES"; a single example needs no count."""
        count = f" ({self.count})" if self.count > 1 else ""
        return f"{name}{count}: {', '.join(self.examples)}{', ...' if self.more else ''}"

    def add(self, example: str, count: int = 1) -> None:
        self.count += count
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)
        else:
            self.more = True


class Report:
    """The findings about one dataset; ``str(report)`` is a text for its user.

    Args:
        source: the file or folder that was checked.
    """

    def __init__(self, source: str):
        self.source = source
        self.errors: dict[Fault, Finding] = {}
        self.repaired: dict[Fault, Finding] = {}
        self.notes: dict[Fault, Finding] = {}

    def error(self, fault: Fault, example: str, count: int = 1) -> None:
        """Add a fault that makes the dataset unusable.

        Args:
            example: the place of the fault, or a summary of all its places.
            count: the number of places.
        """
        self.errors.setdefault(fault, Finding()).add(example, count)

    def repair(self, fault: Fault, example: str, count: int = 1) -> None:
        """Add a fault that is repaired in a copy."""
        self.repaired.setdefault(fault, Finding()).add(example, count)

    def note(self, fault: Fault, example: str, count: int = 1) -> None:
        """Add something that the user should know, but that changes and stops nothing."""
        self.notes.setdefault(fault, Finding()).add(example, count)

    def raise_errors(self) -> None:
        """Raise ValueError with the whole report if it has an error."""
        if self.errors:
            raise ValueError(str(self))

    def __str__(self) -> str:
        lines = []
        if self.errors:
            lines += [f"{self.source} cannot be used:", *_lines(self.errors)]
        if self.repaired:
            done = "faults that can be repaired" if self.errors else "faults repaired"
            lines += [f"{self.source}, {done} in a copy:", *_lines(self.repaired)]
        if self.notes:
            lines += [f"{self.source}, for your information:", *_lines(self.notes)]
        return "\n".join(lines) or f"{self.source}: no faults"


def _lines(findings: dict[Fault, Finding]) -> list[str]:
    lines = []
    for fault, finding in findings.items():
        lines += [f"  {finding.under(fault.name)}", f"    -> {fault.remedy}"]
    return lines


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 class" or "3 classes"."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}es" if noun.endswith(("s", "x")) else f"{number} {noun}s"


def for_each(
    function: Callable[[Item], Result], items: Sequence[Item], description: str
) -> list[Result]:
    """Return ``[function(item) for item in items]``, computed in threads.

    Meant for functions that read files. Shows a progress bar if there are many items. An exception
    of ``function`` ends the loop.
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
