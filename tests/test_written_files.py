"""A training writes each file of its output folder whole, or appends to it; each is listed here.

``test_writers.py`` reads the code; this runs it, together with Detectron2 and TensorBoard.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT
from recorded_training import __file__ as SCRIPT

WHOLE, APPENDED, LOCK = "whole", "appended", "lock"
# Files of an output folder -> how they are written, and who reads them later.
FILES = {
    "config.yaml": (WHOLE, "--config-file, swinv2 eval, predict and analyze"),
    "log.txt": (APPENDED, "people"),
    "metrics.json": (APPENDED, "--resume and swinv2 analyze, which leave out a torn last line"),
    "metrics_replaced.json": (APPENDED, "people"),
    "events.out.tfevents.*": (APPENDED, "TensorBoard, which passes over a torn record"),
    "training.lock": (LOCK, "other trainings"),
    "train_samples.jpg": (WHOLE, "people"),
    "model_???????.pth": (WHOLE, "--resume"),
    "model_final.pth": (WHOLE, "--resume, swinv2 eval and predict"),
    "last_checkpoint": (WHOLE, "--resume"),
    "last_checkpoint.sha256": (WHOLE, "--resume"),
    "model_best.pth": (WHOLE, "swinv2 eval and predict"),
    "model_best.json": (WHOLE, "--resume"),
    "early_stopping.json": (WHOLE, "--resume"),
    "last_evaluation.json": (WHOLE, "--resume"),
    "datasets/*.json": (WHOLE, "the evaluation"),
    "inference*/results.json": (WHOLE, "people"),
    "inference*/instances_predictions.pth": (WHOLE, "people"),
    "inference*/coco_instances_results.json": (WHOLE, "swinv2 analyze"),
    "inference*/sem_seg_predictions.json": (WHOLE, "swinv2 analyze"),
    "inference*/sem_seg_evaluation.pth": (WHOLE, "people"),
    "inference*/*_coco_format.json": (WHOLE, "the next evaluation, which converts a damaged one"),
    "inference*/*_coco_format.json.lock": (LOCK, "other processes; it is empty"),
}
MODES = {APPENDED: ("a",), LOCK: ("a", "x", "r+"), WHOLE: ()}
PARTIAL = re.compile(r"\.\d+-[0-9a-f]{8}\.partial")


def train(dialect: str, folder: Path, *more: str) -> list[list[str]]:
    """Train in a new process; return what it did to files."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, "-W", "ignore", str(SCRIPT), dialect, str(folder), *more]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / f"events{len(more)}.json").read_text(encoding="utf-8"))


def entry(name: str) -> str:
    """The one pattern of the list that a file has."""
    found = [pattern for pattern in FILES if fnmatch.fnmatchcase(name, pattern)]
    assert len(found) == 1, (
        f"{name} is written by a training: write it through checkpoints/durable.py, and list it in "
        f"FILES with its readers and in docs/RELIABILITY.md (it matches {found})"
    )
    return found[0]


def appends(how: str, pattern: str) -> bool:
    """Whether a file that is only appended to was opened so by ``os.open``."""
    flags = int(how.split()[1]) if how.startswith("flags ") else 0
    return bool(flags & os.O_APPEND) and FILES[pattern][0] == APPENDED


def check(events: list[list[str]], folder: Path) -> None:
    """Hold every event to the list."""
    opened = set()
    for kind, name, how, writer in events:
        if kind == "rename":
            whole = bool(PARTIAL.search(name)) or name.endswith("_coco_format.json.tmp")
            assert whole, f"{writer} renames {name}, which may not be on the disk, to {how}"
            opened.add(name)
        elif not PARTIAL.search(name):
            pattern = entry(name)
            first = name.startswith("events.") and name not in opened  # its name is new
            assert how in MODES[FILES[pattern][0]] or first or appends(how, pattern), (
                f"{writer} opens {name} with {how!r}"
            )
            opened.add(name)
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in files]
    assert not [name for name in names if PARTIAL.search(name)]
    for name in names:  # also those that were written without Python's open
        entry(name)


@pytest.mark.heavy
@pytest.mark.parametrize("dialect", ["yaml", "lazy"])
def test_a_training_and_its_resumption_write_listed_files_as_listed(dialect, tmp_path):
    for more in ([], ["--resume"]):
        check(train(dialect, tmp_path, *more), tmp_path / "output")
    there = {entry(path.name) for path in (tmp_path / "output").iterdir() if path.is_file()}
    assert {"model_best.json", "early_stopping.json", "metrics.json", "config.yaml"} <= there


@pytest.mark.heavy
def test_a_semantic_evaluation_writes_listed_files_as_listed(tmp_path):
    check(train("semantic", tmp_path), tmp_path / "output")
    assert (tmp_path / "output" / "inference" / "sem_seg_predictions.json").is_file()


def test_the_documentation_has_the_files_of_an_output_folder():
    page = (ROOT / "docs" / "RELIABILITY.md").read_text(encoding="utf-8")
    for name in FILES:
        shown = name.replace("inference*", "inference").replace("???????", "NNNNNNN")
        assert f"`{shown}`" in page, f"docs/RELIABILITY.md: no {shown}"
