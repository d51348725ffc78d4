"""All commands: quick help, choices and defaults of the library, errors in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from scripts import COMMANDS, ROOT, tool

from swinv2_backbone.checkpoints.convert import TARGETS
from swinv2_backbone.cli import errors, repository
from swinv2_backbone.d2.evaluation.analysis.report import Settings
from swinv2_backbone.d2.pretraining.recipe import AMP_DTYPES, Recipe
from swinv2_backbone.export.formats import FORMATS

NAMES = sorted(
    file.stem for file in (ROOT / "tools").glob("*.py") if (COMMANDS / file.name).exists()
)

ALONE = """
import importlib
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        absent = {"cv2", "detectron2", "fvcore", "matplotlib", "numpy", "torch", "torchvision"}
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
for name in sys.argv[1:]:
    try:
        importlib.import_module(f"swinv2_backbone.cli.{name}").main(["--help"])
    except SystemExit as end:
        assert end.code == 0
"""


def test_every_command_has_a_script_that_can_be_executed():
    assert len(NAMES) >= 12
    for name in NAMES:
        script = ROOT / "tools" / f"{name}.py"
        assert script.stat().st_mode & 0o111, name
        text = script.read_text()
        assert text.startswith("#!/usr/bin/env python\n"), name
        assert f"from swinv2_backbone.cli.{name} import " in text, name
        assert len(text.splitlines()) <= 15, name


def test_help_needs_no_package():
    names = [name for name in NAMES if name != "train_net"]  # whose flags are Detectron2's
    result = subprocess.run(
        [sys.executable, "-c", ALONE, *names],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("usage: ") == len(names)


def defaults(name: str, *arguments: str) -> dict:
    return vars(tool(name).parser().parse_args(arguments))


def test_choices_and_defaults_are_those_of_the_library():
    assert tuple(TARGETS) == tool("convert_checkpoint").LAYOUTS
    assert tuple(FORMATS) == tool("export_model").FORMATS
    given = defaults("analyze_results", "--config-file", "a", "--output", "b")
    assert Settings(given["iou"], given["confidence"], given["worst"]) == Settings()
    script = tool("pretrain_simmim")
    assert script.AMP_DTYPES == AMP_DTYPES
    args = script.parser().parse_args(["--images", "a", "--output", "b", "--iterations", "20"])
    assert script.read_recipe(args, 5) == Recipe(iterations=20, batch_size=args.batch_size)


@pytest.mark.parametrize("error", [ValueError("a"), FileNotFoundError("a"), ImportError("a")])
def test_an_error_of_the_user_ends_the_process_with_one_line(error):
    with pytest.raises(SystemExit) as ended, errors.errors_as_messages():
        raise error
    assert ended.value.code == f"{type(error).__name__}: a"


def test_other_errors_keep_their_traceback():
    with pytest.raises(KeyError), errors.errors_as_messages():
        raise KeyError("a")
    with pytest.raises(SystemExit, match="KeyError"), errors.errors_as_messages(KeyError):
        raise KeyError("a")


def test_files_of_the_repository_are_found_from_the_script_or_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert repository.repository_file("constraints.txt") == ROOT / "constraints.txt"
    (tmp_path / "constraints.txt").write_text("")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "tools" / "demo.py")])
    assert repository.repository_file("constraints.txt") == tmp_path / "constraints.txt"


def test_a_missing_repository_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin" / "demo")])
    monkeypatch.setattr(repository, "PACKAGE", Path(tmp_path / "site-packages" / "swinv2_backbone"))
    with pytest.raises(SystemExit, match="^FileNotFoundError: configs/.*clone the repository"):
        tool("demo").main([])
