"""The table of exporters in docs/DATASETS.md, made from the results of ``run.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results.json")
PAGE = ROOT / "docs" / "DATASETS.md"
START, END = "<!-- exporters: begin -->", "<!-- exporters: end -->"


def table(results: dict[str, dict[str, Any]]) -> str:
    return ""


def write_table(results: dict[str, dict[str, Any]]) -> None:
    """Replace the table between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    if START not in page:
        return
    before, rest = page.split(START)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{START}\n{table(results)}\n{END}{after}", encoding="utf-8")
