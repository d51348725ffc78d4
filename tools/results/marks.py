"""Tables between the marks of a document, and their numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def fill_in(document: Path, tables: Mapping[str, str]) -> str:
    """Return the text of a document with each table between its marks.

    Raises:
        ValueError: The document has no marks for a table.
    """
    text = document.read_text(encoding="utf-8")
    for name, table in tables.items():
        before, found, rest = text.partition(f"<!-- results: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not (found and end):
            raise ValueError(f"{document} has no marks '<!-- results: {name} -->', '<!-- end -->'")
        text = f"{before}{found}{table}\n{end}{after}"
    return text


def read_numbers(file: Path) -> dict[str, Any]:
    """Return the numbers of an earlier report, or none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def as_json(numbers: Mapping[str, Any]) -> str:
    return json.dumps(numbers, indent=1, sort_keys=True) + "\n"
