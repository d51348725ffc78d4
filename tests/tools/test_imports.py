"""No module imports itself through others, in tools/ or in the package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from scripts import ROOT

import swinv2_backbone

PACKAGE = Path(swinv2_backbone.__file__).parent
TOOLS = ROOT / "tools"

Graph = dict[str, set[str]]


def modules_of(folder: Path, root: Path) -> dict[str, Path]:
    """Return the files below a folder by their dotted name, as seen from ``root``."""
    found = {}
    for file in folder.rglob("*.py"):
        parts = file.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports_of(file: Path) -> list[str]:
    """Return the names that a file imports anywhere in it; ``from a import b`` is ``a.b``."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def graph_of(modules: dict[str, Path]) -> Graph:
    """Return the modules that each module imports; a name counts for the module that has it."""
    graph: Graph = {}
    for name, file in modules.items():
        candidates = imports_of(file)
        targets = {one if one in modules else one.rpartition(".")[0] for one in candidates}
        graph[name] = targets & modules.keys() - {name}
    return graph


def cycle_in(graph: Graph) -> list[str]:
    """Return the modules of one cycle in the order of their imports, or nothing."""
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        path.append(name)
        for target in sorted(graph[name]):
            if found := visit(target):
                return found
        path.pop()
        done.add(name)
        return []

    for name in sorted(graph):
        if found := visit(name):
            return found
    return []


ALL = modules_of(PACKAGE, PACKAGE.parent) | modules_of(TOOLS, TOOLS)
ROOMS = sorted({name.rpartition(".")[0] for name in ALL if "." in name})


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_no_circle_of_imports(room):
    inside = {name: file for name, file in ALL.items() if name.startswith(f"{room}.")}
    assert cycle_in(graph_of(inside)) == []


def test_rooms_and_tools_have_no_circle_of_imports_between_them():
    assert cycle_in(graph_of(ALL)) == []


def test_a_circle_is_found(tmp_path):
    sources = {
        "a": "import b",
        "b": "def later():\n    from c import thing",
        "c": "import sys\nfrom d import a_name",
        "d": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import b",
    }
    for name, text in sources.items():
        (tmp_path / f"{name}.py").write_text(text)
    modules = modules_of(tmp_path, tmp_path)
    assert cycle_in(graph_of(modules)) == ["b", "c", "d", "b"]
    (tmp_path / "d.py").write_text("")
    assert cycle_in(graph_of(modules)) == []
