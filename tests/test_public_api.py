"""The public API: the documentation imports nothing else, and documents all of it."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
from documents import BLOCKS, PAGES, ROOT, prose_of

import swinv2_backbone
import swinv2_backbone.d2

PACKAGES = {module.__name__: module for module in (swinv2_backbone, swinv2_backbone.d2)}
PUBLIC = {f"{package}.{name}" for package, module in PACKAGES.items() for name in module.__all__}
CONFIGS = sorted((ROOT / "configs").rglob("*.py"))
API_PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
DIRECTIVE = re.compile(r"^\.\. (?:auto|py:)(\w+):: (\S+)$", re.M)


def imported(code: str) -> list[str]:
    """The dotted names that code imports from the package."""
    names = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if name.split(".")[0] == "swinv2_backbone"]


def directives(*kinds: str) -> list[str]:
    """The targets of the directives of some kinds on the pages of the API."""
    found = [match for page in API_PAGES for match in DIRECTIVE.findall(page.read_text())]
    return [target for kind, target in found if kind in kinds]


def resolved(name: str) -> object:
    package, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(package), attribute)


@pytest.mark.parametrize(
    "block", [pytest.param(b, id=b.name) for b in BLOCKS if b.language == "python"]
)
def test_snippets_import_public_names_alone(block):
    assert set(imported(block.text)) <= PUBLIC | set(PACKAGES)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_configs_import_public_names_alone(config: Path):
    assert set(imported(config.read_text(encoding="utf-8"))) <= PUBLIC


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_names_public_names_alone(page: Path):
    named = re.findall(r"\bswinv2_backbone(?:\.\w+)+", prose_of(page))
    assert set(named) <= PUBLIC | set(PACKAGES)


def test_every_public_name_is_documented_and_nothing_else_is_called_public():
    assert sorted(directives("function", "class", "data")) == sorted(PUBLIC)


def test_documented_modules_exist():
    modules = directives("module")
    assert modules and all(importlib.import_module(module) for module in modules)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_names_are_importable_and_listed(name: str):
    package, _, attribute = name.rpartition(".")
    assert resolved(name) is not None
    assert attribute in dir(PACKAGES[package])


@pytest.mark.parametrize("package", PACKAGES)
def test_names_that_are_not_public_are_attribute_errors(package: str):
    with pytest.raises(AttributeError, match="no attribute 'does_not_exist'"):
        resolved(f"{package}.does_not_exist")
