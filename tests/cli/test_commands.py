"""All commands: quick help, choices and defaults of the library, errors in one line."""

from __future__ import annotations

import subprocess
import sys

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
        module = "train" if name == "train_net" else name
        assert f"from swinv2_backbone.cli.{module} import " in text, name
        assert len(text.splitlines()) <= 15, name


def test_help_needs_no_package():
    names = ["train" if name == "train_net" else name for name in NAMES]
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


def test_files_of_the_repository_are_found_in_the_package_or_above(monkeypatch, tmp_path):
    assert repository.repository_file("constraints.txt") == ROOT / "constraints.txt"
    monkeypatch.setattr(repository, "PACKAGE", tmp_path / "swinv2_backbone")
    with pytest.raises(FileNotFoundError, match="no constraints.txt .*install swinv2_backbone"):
        repository.repository_file("constraints.txt")
    (tmp_path / "swinv2_backbone").mkdir()
    (tmp_path / "swinv2_backbone" / "constraints.txt").write_text("")
    found = repository.repository_file("constraints.txt")
    assert found == tmp_path / "swinv2_backbone" / "constraints.txt"
