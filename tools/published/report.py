"""The tables of docs/PUBLISHED.md and the entries of docs/published.json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from published.data import full_sizes
from published.rows import SUITES, Row
from published.running import Entry

Numbers = dict[str, dict[str, Entry]]  # suite -> folder of a run -> its entry


def table(suite: str, entries: Mapping[str, Entry]) -> str:
    """Return a suite's table; only the recipes as they are, on the published sets, fill it."""
    ours = {entry["row"]: entry for entry in entries.values() if _counts(suite, entry)}
    lines = ["| recipe | published | of what | ours |", "|---|---|---|---|"]
    for row in SUITES[suite]:
        own = _shown(row, ours[row.name]["metrics"]) if row.name in ours else "not run"
        lines.append(f"| `{row.name}` | {_shown(row, row.published)} | {row.of} | {own} |")
    return "\n".join(lines)


def fill_in(document: Path, suite: str, entries: Mapping[str, Entry]) -> str:
    """Return the text of a document with a suite's table between its marks.

    Raises:
        ValueError: The document has no such marks.
    """
    text = document.read_text(encoding="utf-8")
    mark = re.compile(rf"(<!-- results: {suite} -->\n).*?(<!-- end -->)", re.S)
    if not mark.search(text):
        raise ValueError(f"{document} has no marks '<!-- results: {suite} -->', '<!-- end -->'")
    return mark.sub(lambda found: f"{found[1]}{table(suite, entries)}\n{found[2]}", text)


def read_numbers(file: Path) -> Numbers:
    """Return the entries of earlier reports, or none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def as_json(numbers: Numbers) -> str:
    return json.dumps(numbers, indent=1, sort_keys=True) + "\n"


def _counts(suite: str, entry: Entry) -> bool:
    return not entry["changes"] and entry["images"] == full_sizes(suite)


def _shown(row: Row, values: Mapping[str, float | None]) -> str:
    digits = 2 if "top-1" in row.metrics else 1
    found = ((title, values.get(title)) for title in row.metrics)
    return ", ".join(f"{title} {x:.{digits}f}" for title, x in found if x is not None)
