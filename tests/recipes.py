"""The files of ``configs/`` as texts: headers, what they are built from, the keys that they set."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import yaml


def header(file: Path) -> str:
    """The comment at the top of a config."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        return ast.get_docstring(ast.parse(text))
    lines = text[: re.search("^[^#]", text, re.MULTILINE).start()].splitlines()
    return "\n".join(line.removeprefix("#").strip() for line in lines)


def bases(file: Path) -> list[Path]:
    """The configs that a config is built from, directly."""
    if file.suffix == ".yaml":
        base = yaml.safe_load(file.read_text(encoding="utf-8")).get("_BASE_")
        return [file.parent / base] if base else []
    imports = [
        node
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
    ]
    return [
        file.parents[node.level - 1] / f"{node.module.replace('.', '/')}.py"
        for node in imports
        if node.level
    ]


def hops(file: Path) -> int:
    return max((1 + hops(base) for base in bases(file)), default=0)


def leaves(node: Mapping, path: str = "") -> dict:
    """Nested keys as one: "SOLVER.MAX_ITER" -> its value, with tuples as lists."""
    found = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            found |= leaves(value, f"{path}{key}.")
        else:
            found[path + key] = _plain(value)
    return found


def _plain(value):
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
