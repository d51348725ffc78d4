"""Truth beside prediction on the first test images of a config, and a contact sheet of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from swinv2_backbone.d2.data.datasets.custom import register_custom_datasets
from swinv2_backbone.d2.data.storage.pictures import write_picture
from swinv2_backbone.d2.inference.drawing import beside
from swinv2_backbone.d2.inference.predictor import predictor_of

SHEET = 9  # pictures on the contact sheet


def draw_beside_truth(cfg: CfgNode, folder: Path, count: int) -> int:
    """Draw truth (left) beside prediction (right) for the first test images with an annotation.

    Args:
        cfg: The model, its weights and its data.
        folder: Where the pictures go; the contact sheet goes beside it, as ``folder.jpg``.
        count: Number of pictures.

    Returns:
        The number of test images.
    """
    cfg = register_custom_datasets(cfg)
    predictor, sheet = predictor_of(cfg), []
    folder.mkdir(exist_ok=True)
    images = DatasetCatalog.get(cfg.DATASETS.TEST[0])
    for image in [image for image in images if image.get("annotations", True)][:count]:
        picture = predictor.read(image["file_name"])
        drawn = beside(
            predictor.draw_truth(picture, image), predictor.draw(picture, predictor(picture))
        )
        write_picture(folder / Path(image["file_name"]).name, np.ascontiguousarray(drawn))
        sheet.append(drawn)
    write_picture(folder.with_name(f"{folder.name}.jpg"), contact_sheet(sheet[:SHEET]))
    return len(images)


def contact_sheet(pictures: list[np.ndarray], columns: int = 3, width: int = 400) -> np.ndarray:
    """Arrange pictures of any size in rows, each scaled to ``width`` pixels."""
    rows = [
        _row(pictures[start : start + columns], columns, width)
        for start in range(0, len(pictures), columns)
    ]
    return np.concatenate(rows)


def _row(pictures: list[np.ndarray], columns: int, width: int) -> np.ndarray:
    scaled = []
    for picture in pictures:
        scale = width / picture.shape[1]
        scaled.append(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    height = max(len(picture) for picture in scaled)
    cells = [np.full((height + 8, width + 8, 3), 255, np.uint8) for _ in range(columns)]
    for cell, picture in zip(cells, scaled):
        cell[: picture.shape[0], : picture.shape[1]] = picture
    return np.concatenate(cells, axis=1)
