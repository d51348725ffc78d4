"""tools/prepare_ade20k.py: labels made or kept, and errors in one line."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from ade20k_files import write_ade20k
from scripts import ROOT

from swinv2_backbone.d2.data.datasets.ade20k import prepare

TOOL = ROOT / "tools" / "prepare_ade20k.py"


@pytest.fixture
def root(tmp_path) -> Path:
    return write_ade20k(tmp_path)


def run(*args) -> None:
    """The tool, run as a script but in this process."""
    with patch.object(sys, "argv", [str(TOOL), *map(str, args)]):
        runpy.run_path(str(TOOL), run_name="__main__")


def test_the_tool_finds_the_datasets_folder_and_counts(root, capsys, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root.parent))
    run("--workers", 2)
    printed = capsys.readouterr()
    assert printed.out == "label files: 6 made, 0 kept\n"
    assert "6/6" in printed.err  # the progress bar


@pytest.mark.parametrize(
    ("args", "counts"),
    [([], "label files: 0 made, 6 kept\n"), (["--overwrite"], "label files: 6 made, 0 kept\n")],
)
def test_the_tool_keeps_or_overwrites(root, capsys, args, counts):
    prepare(root)
    run(root, *args)
    assert capsys.readouterr().out == counts


def test_the_tool_ends_with_the_error_in_one_line(tmp_path):
    with pytest.raises(SystemExit) as exit:
        run(tmp_path)
    assert str(exit.value).startswith("ValueError: neither") and "\n" not in str(exit.value)
