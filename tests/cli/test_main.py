"""``swinv2``: its table of commands, its short forms, and what it does without its libraries."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from detectron2.engine import default_argument_parser
from scripts import CONFIGS, ROOT, tool

import swinv2_backbone
from swinv2_backbone.cli import arguments, errors, info, main, train, words

# Imports nothing heavy for the help of any command, nor for its short errors.
HELPS = """
import sys
from swinv2_backbone.cli import main

for argv in ([], ["--version"], *([name, "--help"] for name in main.COMMANDS)):
    try:
        main.main(argv)
    except SystemExit as end:
        assert not end.code, (argv, end.code)
for argv in (["trian"], ["train", "mask_rcnn_swin"], ["eval", "."], ["train", "a.yaml"],
             ["train", "mask_rcnn_swinv2", "A"],
             ["train", "mask_rcnn_swinv2", "A", "1", "--resume"],
             ["predict", "mask_rcnn_swinv2", "photo.jpg"],
             ["classify", "photo.jpg", "--model", "swinv2_tiny_window8_256"],
             ["eval", "mask_rcnn_swinv2", "MODEL.WEIGHTS", "none.pth"],
             ["train", "mask_rcnn_swinv2", "MODEL.WEIGHTS", "nowhere.pth"]):
    try:
        main.main(argv)
    except SystemExit as end:
        print(end.code, file=sys.stderr)
heavy = {"torch", "numpy", "detectron2", "cv2", "fvcore", "yaml"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.fixture(autouse=True)
def _shown(monkeypatch):
    monkeypatch.setattr(arguments, "shown", arguments.Shown())


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """The output folder of a training."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("MODEL:\n  DEVICE: cpu\n")
    for name in ("run/model_final.pth", "mine.pth", "a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def test_help_and_short_errors_import_nothing_heavy(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HELPS], capture_output=True, text=True, cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: swinv2") == 1 + len(main.COMMANDS)
    assert "tools/" not in done.stdout
    for words_of_an_error in (
        "did you mean train?",
        "similar recipes: mask_rcnn_swinv2",
        "no config.yaml",
        "or recipe 'a.yaml'",
        "pairs KEY VALUE, got A",
        "options come before KEY VALUE: --resume",
        "no file 'nowhere.pth'",
        "no image or folder 'photo.jpg'",
        "no file 'photo.jpg'",
        "no file of weights 'none.pth'",
    ):
        assert words_of_an_error in done.stderr


def test_the_parser_of_training_has_detectron2s_options():
    ours, theirs = train.parser()._actions, default_argument_parser()._actions
    known = {option: action for action in ours for option in action.option_strings}
    for action in theirs:
        for option in action.option_strings:
            assert known[option].default == action.default, option
            assert known[option].type == action.type and known[option].dest == action.dest


def test_a_run_is_its_config_and_its_weights(run):
    config, weights = str(run / "config.yaml"), str(run / "model_final.pth")
    given = words.of_evaluation([str(run), "A", "1"])
    assert given[-5:] == [config, "MODEL.WEIGHTS", weights, "A", "1"]
    given = words.of_evaluation(["--num-gpus", "2", str(run), "MODEL.WEIGHTS", "mine.pth"])
    assert weights not in given and given[-3:] == [config, "MODEL.WEIGHTS", "mine.pth"]
    assert words.of_training([str(run), "--resume"])[-2:] == ["--config-file", config]
    exported = ["--what", "detector", "--format", "onnx", "--output", "a.onnx"]
    assert words.of_export([str(run), *exported])[-2:] == ["--weights", weights]
    (run / "model_best.pth").write_bytes(b"")
    assert str(run / "model_best.pth") in words.of_evaluation([str(run)])


def test_a_run_of_a_lazy_config_takes_its_own_key(run):
    (run / "config.yaml").write_text("dataloader: {}\nmodel: {}\n")
    assert words.of_evaluation([str(run)])[-1] == f"train.init_checkpoint={run}/model_final.pth"
    given = words.of_evaluation([str(run), "train.init_checkpoint=mine.pth"])
    assert given[-1] == "train.init_checkpoint=mine.pth" and len(given) == 5


def test_images_end_where_keys_begin(run, tmp_path):
    given = words.of_prediction([str(run), "a.jpg", "b.jpg", "--output", "drawn", "A", "1"])
    args = tool("predict").parser().parse_args(given)
    assert args.input == ["a.jpg", "b.jpg"] and args.opts[-2:] == ["A", "1"]
    (tmp_path / "B").mkdir()
    given = words.of_prediction([str(run), "a.jpg", "B", "INPUT.FORMAT", "RGB"])
    args = tool("predict").parser().parse_args(given)
    assert args.input == ["a.jpg", "B"] and args.opts[-2:] == ["INPUT.FORMAT", "RGB"]


def test_a_recipe_may_stand_behind_options():
    given = words.of_training(["--num-gpus", "8", "mask_rcnn_swinv2", "--resume", "A", "1"])
    args = train.parser().parse_args(given)
    assert args.config_file == str(CONFIGS / "mask_rcnn_swinv2.yaml")
    assert args.resume and args.num_gpus == 8 and args.opts == ["A", "1"]


def test_a_variant_is_exported_by_its_name():
    given = ["swinv2_tiny_window8_256", "--what", "classifier", "--format", "onnx"]
    given = words.of_export([*given, "--output", "a.onnx"])
    assert given[:2] == ["--model", "swinv2_tiny_window8_256"]


def test_commands_that_need_detectron2_say_so_at_once(monkeypatch, run):
    monkeypatch.setattr(errors.importlib.util, "find_spec", lambda name: None)
    for argv in (["train", "mask_rcnn_swinv2"], ["demo"], ["eval", str(run)]):
        with pytest.raises(SystemExit, match="swinv2 install-detectron2"):
            main.main(argv)


def test_a_part_of_detectron2_that_is_missing_is_named():
    missing = pytest.raises(SystemExit, match="fvcore is not .*swinv2 install-detectron2")
    with missing, errors.errors_as_messages():
        raise ModuleNotFoundError("No module named 'fvcore.nn'", name="fvcore.nn")


def test_warnings_of_libraries_are_silenced_unless_the_user_asks(monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    errors.silence_libraries()
    assert sys.warnoptions == ["error"]
    monkeypatch.setattr(sys, "warnoptions", [])
    with mock.patch.object(errors.warnings, "filterwarnings") as filtered:
        errors.silence_libraries()
    assert filtered.call_count == len(errors.OF_LIBRARIES) == len(sys.warnoptions)


def test_info_has_what_a_bug_report_needs_and_no_home(monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(ROOT))
    monkeypatch.setenv("SWINV2_KERNEL", "reference")
    main.main(["info", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["swinv2_backbone"]["version"] == swinv2_backbone.__version__
    assert found["kernels"]["cpu"] == "reference" and "compiled part" in found["Detectron2"]
    assert str(ROOT) not in json.dumps(found) and found["swinv2_backbone"]["folder"][0] == "~"
    monkeypatch.setattr(info, "find_spec", lambda name: None)
    assert "install-detectron2" in info.as_text(info.report())
    assert not any("error" in section for section in found.values())


def test_the_page_of_commands_has_each_with_a_line_that_parses(monkeypatch, tmp_path):
    page = (ROOT / "docs" / "COMMANDS.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `swinv2 ([\w-]+)` \| (.+?) \| `swinv2 (.+?)` \|$", page, re.MULTILINE)
    assert {name: summary for name, summary, _ in rows} == {
        name: command.summary for name, command in main.COMMANDS.items()
    }
    folder = tmp_path / "output"
    folder.mkdir()
    (folder / "config.yaml").write_text("MODEL: {}\n")
    (folder / "model_final.pth").write_bytes(b"")
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    for name, _, example in rows:
        command, *argv = example.split()
        assert command == name
        parse(name, argv)


def test_the_page_of_commands_has_the_command_of_each_script():
    page = (ROOT / "docs" / "COMMANDS.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(tools/\w+\.py)` \| `(swinv2 .+?)`", page, re.MULTILINE)
    scripts = {file: name for file, name in main.script_names().items() if (ROOT / file).exists()}
    assert dict(rows) == scripts and len(rows) == len(scripts)


def parse(name: str, argv: list[str]) -> argparse.Namespace:
    """Parse the words of a command as it does."""
    command = main.COMMANDS[name]
    if name == "analyze":
        kind, *argv = argv
        argv = words.of_analysis(argv) if kind == "results" else ["--model", *argv]
        return tool(f"analyze_{kind}").parser().parse_args(argv)
    return tool(command.module).parser().parse_args(command.rewrite(argv))
