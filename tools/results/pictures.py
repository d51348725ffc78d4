"""Pictures of predictions and of errors, of the sets whose licence allows to show photographs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import cv2
import numpy as np

from results.sets import SETS
from results.training import place_of, trained
from swinv2_backbone.cli import analyze_results
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.demo.pictures import draw_beside_truth
from swinv2_backbone.d2.evaluation.analysis.report import SHEETS
from swinv2_backbone.d2.evaluation.analysis.sheets import CAPTION, GAP, SIDE

COUNT = 3  # pictures of every set
# Set and kind of errors of the rows of the gallery.
ERRORS = (
    *(("cards", "class"), ("cards", "background"), ("cards", "missed")),
    *(("nuclei", "background"), ("nuclei", "location"), ("nuclei", "missed")),
    *(("nuts", "class"), ("nuts", "background")),
)
TITLE = 26  # height of a row's title, in pixels
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 85]


def draw(folder: Path, *, name: str, arm: str, seed: int) -> dict:
    """Draw the first test images of a set as a finished training predicts them, and its errors."""
    run, place = folder / "runs" / trained(name, arm, seed), place_of(folder, name)
    weights = ["MODEL.WEIGHTS", str(run / "model_final.pth")]
    draw_beside_truth(load_config(str(run / "config.yaml"), weights), place / "drawn", COUNT)
    shutil.rmtree(place / "analysis", ignore_errors=True)
    files = ["--config-file", str(run / "config.yaml"), "--output", str(place / "analysis")]
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        analyze_results.main([*files, "--confidence", "0.3"])
    return {}


def combine(folder: Path, file: Path) -> None:
    """Write the drawn test images into one file, a row for each set."""
    sheets = [place_of(folder, one.name) / "drawn.jpg" for one in SETS if one.shown]
    _write([_read(sheet) for sheet in sheets if sheet.is_file()], file)


def combine_errors(folder: Path, file: Path) -> None:
    """Write the first row of some sheets of errors into one file."""
    rows = []
    for name, kind in ERRORS:
        sheet = place_of(folder, name) / "analysis" / SHEETS[kind]
        if sheet.is_file():
            title = f"{name}: {kind}"
            rows += [_title(title, _read(sheet).shape[1]), _read(sheet)[: SIDE + CAPTION + GAP]]
    _write(rows, file)


def _read(file: Path) -> np.ndarray:
    return np.asarray(cv2.imread(str(file)))


def _title(text: str, width: int) -> np.ndarray:
    row = np.full((TITLE, width, 3), 255, np.uint8)
    cv2.putText(row, text, (2, 19), cv2.FONT_HERSHEY_DUPLEX, 0.55, 0, 1, cv2.LINE_AA)
    return row


def _write(rows: Sequence[np.ndarray], file: Path) -> None:
    if rows:
        cv2.imwrite(str(file), np.concatenate(rows), QUALITY)
