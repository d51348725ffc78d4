"""Results and the compact file that keeps them: machines once, then one result per line.

A result has the milliseconds of every round; medians and ratios are derived from them (figures.py).
Its content is JSON:

- all kinds: ``kind``, ``section`` (the heading of its table), ``machine``, ``setting`` and
  ``failed`` (why a candidate was not timed, by name);
- a comparison: ``candidates`` (``ms``; ``memory``, bytes or an error; ``difference`` from the
  reference and ``at`` which size, by name), ``floor`` and ``left_out`` (why a candidate does not
  apply, by name);
- scaling: ``candidate`` and ``rows`` (``size``, ``threads``, ``ms``);
- a detector: ``detectors`` (milliseconds by name) and ``left_out``;
- int8: ``models`` (``bytes``, ``ms``, ``max_error``, ``mean_error``, by name);
- attention: ``bandwidth``, ``rate`` and ``rows`` (``seconds``, share of the ``roofline``, by name).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarking.machine import one_line
from benchmarking.settings import Setting
from swinv2_backbone.checkpoints.durable import write_text

Content = dict[str, Any]

COMPARISON, SCALING, DETECTOR, INT8 = "comparison", "scaling", "detector", "int8"
ATTENTION = "attention"

DIGITS = 8  # significant digits in the file; with 7 the tables of docs/SPEED.md are the same
NAMED_BY = ("candidates", "left_out", "failed")  # keys whose names distinguish comparisons


class Results:
    """Results by identity, in a file that is written after each; without a file, in memory.

    Raises:
        ValueError: The file exists and holds no results.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self._by_identity: dict[str, Content] = {}
        if path is not None and path.exists():
            self._by_identity = {identity_of(one): one for one in read_results(path)}

    def find(self, identity: str) -> Content | None:
        return self._by_identity.get(identity)

    def add(self, result: Content) -> Content:
        """Keep a result, replacing an earlier one of the same identity; return it as rounded."""
        rounded = _rounded(result)
        self._by_identity[identity_of(rounded)] = rounded
        if self.path is not None:
            write_results(self.path, self._by_identity.values())
        return rounded


def identity(kind: str, section: str, setting: Setting, names: Iterable[str], machine: dict) -> str:
    """Return the text that identifies a result."""
    return f"{kind} | {section} | {setting} | {' '.join(sorted(names))} | {one_line(machine)}"


def identity_of(result: Content) -> str:
    names = {name for key in NAMED_BY for name in result.get(key, ())}
    if result["kind"] == SCALING:
        names = {result["candidate"]}
    elif result["kind"] != COMPARISON:
        names = set()
    setting = Setting.from_json(result["setting"])
    return identity(result["kind"], result["section"], setting, names, result["machine"])


def read_results(path: Path) -> list[Content]:
    """Read the results of a file, each with its machine.

    Raises:
        ValueError: The file holds no results.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        machines = content["machines"]
        found = [one | {"machine": machines[one["machine"]]} for one in content["results"]]
        for one in found:
            identity_of(one)
    except (json.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path} has no results of this tool: {error!r}") from error
    return found


def write_results(path: Path, results: Iterable[Content]) -> None:
    """Write a file atomically, with one line for each machine and each result."""
    results = list(results)
    machines: list[dict] = []
    for one in results:
        if one["machine"] not in machines:
            machines.append(one["machine"])
    rows = [one | {"machine": machines.index(one["machine"])} for one in results]
    text = f'{{"machines": [\n{_lines(machines)}\n],\n"results": [\n{_lines(rows)}\n]}}\n'
    write_text(path, text)


def _lines(rows: Iterable[dict]) -> str:
    return ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)


def _rounded(content: Any) -> Any:
    if isinstance(content, float):
        return float(f"{content:.{DIGITS}g}")
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_rounded(value) for value in content]
    return content
