"""Sheets of the worst errors of a kind: details of images with the detection and the object.

Legend: boxes are COCO's, (x, y, width, height) in pixels; pictures are (H, W, 3) uint8, RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

from swinv2_backbone.d2.evaluation.analysis.errors import MISSED, Errors, Verdict
from swinv2_backbone.d2.evaluation.analysis.pictures import FALSE, RIGHT, Color

COLUMNS, MOST = 4, 12  # details on a sheet
SIDE, CAPTION, GAP = 220, 22, 6  # of a detail, in pixels
SURROUNDINGS, LEAST = 2.0, 48  # side of a detail over that of its boxes, and the shortest in pixels


def worst_errors(errors: Errors, kind: str) -> list[Verdict]:
    """Return the most confident errors of a kind, or the largest of the missed objects."""
    found = errors.of_kind(kind)  # by falling score
    return sorted(found, key=_largest)[:MOST] if kind == MISSED else found[:MOST]


def draw_sheet(
    errors: Sequence[Verdict],
    names: Mapping[int, str],
    files: Mapping[int, str],
    read: Callable[[str], np.ndarray],
) -> np.ndarray:
    """Draw errors in rows, each with its detection (red) and the object that it should be (green).

    Args:
        errors: at least one.
        names: category id -> name.
        files: image id -> file name.
        read: reads a file as RGB.
    """
    details = [_detail(one, names, read(files[one.image])) for one in errors]
    blank = np.full_like(details[0], 255)
    details += [blank] * (-len(details) % COLUMNS)
    rows = [details[start : start + COLUMNS] for start in range(0, len(details), COLUMNS)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _detail(one: Verdict, names: Mapping[int, str], picture: np.ndarray) -> np.ndarray:
    shown: list[tuple[dict, Color]] = []
    shown += [(one.truth, RIGHT)] if one.truth else []
    shown += [(one.detection, FALSE)] if one.detection else []
    x, y, side = _square(np.array([box["bbox"] for box, _ in shown], float), picture.shape)
    scale = SIDE / side
    drawn = cv2.resize(
        _cut(picture, x, y, side),
        (SIDE, SIDE),
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC,
    )
    for box, color in shown:
        left, top, width, height = box["bbox"]
        corners = np.array([left - x, top - y, left + width - x, top + height - y]) * scale
        ends = corners.round().astype(int).tolist()
        cv2.rectangle(drawn, ends[:2], ends[2:], [255 * part for part in color], 2)
    full = np.full((SIDE + CAPTION + GAP, SIDE + GAP, 3), 255, np.uint8)
    full[CAPTION : CAPTION + SIDE, :SIDE] = drawn
    cv2.putText(
        full, _caption(one, names), (2, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 0, 1, cv2.LINE_AA
    )
    return full


def _square(boxes: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return left, top and side of a square detail of an image with all boxes and surroundings.

    It is moved into the image as far as it fits.
    """
    low, high = boxes[:, :2].min(0), (boxes[:, :2] + boxes[:, 2:]).max(0)
    size = np.array([shape[1], shape[0]], float)
    side = min(max(round((high - low).max() * SURROUNDINGS), LEAST), max(shape[:2]))
    free = size - side  # negative along an edge that is shorter than the detail
    corner = np.where(free < 0, free / 2, np.clip((low + high - side) / 2, 0, abs(free)))
    left, top = corner.round().astype(int).tolist()
    return left, top, side


def _cut(picture: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """Return a square of an image, white beside it."""
    square = np.full((side, side, 3), 255, np.uint8)
    inside = picture[max(top, 0) : top + side, max(left, 0) : left + side]
    height, width = inside.shape[:2]
    square[max(-top, 0) :, max(-left, 0) :][:height, :width] = inside
    return square


def _caption(one: Verdict, names: Mapping[int, str]) -> str:
    if one.detection is None:
        assert one.truth is not None
        return names[one.truth["category_id"]]
    text = f"{names[one.detection['category_id']]} {one.detection['score']:.0%}"
    if one.truth and one.truth["category_id"] != one.detection["category_id"]:
        text += f", is {names[one.truth['category_id']]}"
    return text


def _largest(one: Verdict) -> float:
    return -one.truth["bbox"][2] * one.truth["bbox"][3] if one.truth else 0.0
