"""The tables of docs/PUBLISHED.md."""

from __future__ import annotations

from collections.abc import Mapping

from published.data import full_sizes
from published.rows import SUITES, Row
from published.running import Entry


def table(suite: str, entries: Mapping[str, Entry]) -> str:
    """Return a suite's table; only the recipes as they are, on the published sets, fill it."""
    ours = {entry["row"]: entry for entry in entries.values() if _counts(suite, entry)}
    lines = ["| recipe | published | of what | ours |", "|---|---|---|---|"]
    for row in SUITES[suite]:
        own = _shown(row, ours[row.name]["metrics"]) if row.name in ours else "not run"
        lines.append(f"| `{row.name}` | {_shown(row, row.published)} | {row.of} | {own} |")
    return "\n".join(lines)


def _counts(suite: str, entry: Entry) -> bool:
    return not entry["changes"] and entry["images"] == full_sizes(suite)


def _shown(row: Row, values: Mapping[str, float | None]) -> str:
    digits = 2 if "top-1" in row.metrics else 1
    found = ((title, values.get(title)) for title in row.metrics)
    return ", ".join(f"{title} {x:.{digits}f}" for title, x in found if x is not None)
