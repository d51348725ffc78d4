"""Pictures of truth beside prediction, of the sets whose licence allows to show photographs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from results.sets import SETS
from results.training import place_of, trained
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.demo.pictures import draw_beside_truth

COUNT = 3  # of every set


def draw(folder: Path, *, name: str, arm: str, seed: int) -> dict:
    """Draw the first test images of a set as a finished training predicts them."""
    run = folder / "runs" / trained(name, arm, seed)
    weights = ["MODEL.WEIGHTS", str(run / "model_final.pth")]
    draw_beside_truth(
        load_config(str(run / "config.yaml"), weights), place_of(folder, name) / "drawn", COUNT
    )
    return {}


def combine(folder: Path, file: Path) -> None:
    """Write the pictures that there are into one file, a row for each set."""
    sheets = [place_of(folder, one.name) / "drawn.jpg" for one in SETS if one.shown]
    if found := [np.asarray(cv2.imread(str(sheet))) for sheet in sheets if sheet.is_file()]:
        cv2.imwrite(str(file), np.concatenate(found), [cv2.IMWRITE_JPEG_QUALITY, 85])
