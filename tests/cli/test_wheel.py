"""The wheel has every room of the package and the marker of its types, and no instrument."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from scripts import ROOT
from setuptools import find_packages


def rooms() -> set[str]:
    """Return the folders of the package that have Python files, as dotted names."""
    files = (ROOT / "swinv2_backbone").rglob("*.py")
    return {".".join(file.relative_to(ROOT).parent.parts) for file in files}


def test_every_room_is_a_package_that_setup_finds():
    assert set(find_packages(str(ROOT), include=["swinv2_backbone*"])) == rooms()


@pytest.mark.slow
def test_the_wheel_is_the_package_and_nothing_else(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += [
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path),
        str(copy_of_sources(tmp_path)),
    ]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = ROOT / "swinv2_backbone"
    expected = {str(file.relative_to(ROOT)) for file in package.rglob("*.py")}
    assert names == expected | {"swinv2_backbone/py.typed"}


def copy_of_sources(folder: Path) -> Path:
    """Copy what setup.py reads, as a build leaves files beside it."""
    copy = folder / "sources"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "swinv2_backbone", copy / "swinv2_backbone", ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy
