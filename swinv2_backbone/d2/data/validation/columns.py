"""The annotations of a COCO-format file as columns, for the checks of the whole set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.data.validation.annotations import AnnotationChecker
from swinv2_backbone.d2.data.validation.boxes import is_finite
from swinv2_backbone.d2.data.validation.crowds import POLYGONS, RLE, UNMASKED
from swinv2_backbone.d2.data.validation.masks import compressed, mask_box, usable
from swinv2_backbone.d2.data.validation.polygons import in_coco_form
from swinv2_backbone.d2.data.validation.report import FaultError


class Columns(NamedTuple):
    """One row for each annotation of a known image that has four finite numbers as its box.

    Attributes:
        category: category ids, (N,) int; -1 if unknown.
        iscrowd: (N,) bool.
        form: form of the mask, (N,): UNMASKED, POLYGONS or RLE.
        boxes: the boxes as the file has them, (N, 4).
        mask_boxes: the boxes of the masks, (N, 4): x, y, width, height; NaN without a mask.
        image_size: height and width of the image, (N, 2).
        area: the stated areas, (N,); NaN without one.
        mask_area: the areas of the masks, (N,); NaN without a mask.
        names: a name for each row, for messages; read for a few rows only.
    """

    category: np.ndarray
    iscrowd: np.ndarray
    form: np.ndarray
    boxes: np.ndarray
    mask_boxes: np.ndarray
    image_size: np.ndarray
    area: np.ndarray
    mask_area: np.ndarray
    names: Sequence[str]


def columns_of(
    annotations: Sequence, checked: Sequence[dict | None], checker: AnnotationChecker
) -> Columns:
    """Return the columns of a list of annotations.

    Args:
        annotations: the list as the file has it.
        checked: for each of them the result of ``checker.check``.
        checker: the checker of the file.
    """
    rows = [
        row
        for annotation, repaired in zip(annotations, checked)
        if isinstance(annotation, dict) and (row := _row(annotation, repaired, checker))
    ]
    category, crowd, form, boxes, mask_boxes, size, area, mask_area, names = (
        zip(*rows) if rows else [()] * 9
    )
    return Columns(
        np.array(category, np.int64),
        np.array(crowd, bool),
        np.array(form, np.int8),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(mask_boxes, np.float64).reshape(-1, 4),
        np.array(size, np.float64).reshape(-1, 2),
        np.array(area, np.float64),
        np.array(mask_area, np.float64),
        names,
    )


def _row(annotation: dict, repaired: dict | None, checker: AnnotationChecker) -> tuple | None:
    image = checker.images.get(checker.image_ids.find(annotation.get("image_id")))  # type: ignore[arg-type]
    box = annotation.get("bbox") or (repaired or {}).get("bbox")
    if image is None or not (image["height"] and image["width"]):
        return None
    if not (isinstance(box, list) and len(box) == 4 and all(map(_fits, box))):
        return None
    size = (image["height"], image["width"])
    mask = _usable_mask((repaired or annotation).get("segmentation"), size)
    form = UNMASKED if not mask else RLE if isinstance(mask, dict) else POLYGONS
    area = annotation.get("area")
    category = checker.category_ids.find(annotation.get("category_id"))
    return (
        -1 if category is None else category,
        annotation.get("iscrowd") in (1, True),
        form,
        box,
        mask_box(mask) if mask else [np.nan] * 4,
        size,
        area if _fits(area) else np.nan,
        _enclosed(mask) if mask else np.nan,
        f"annotation {annotation.get('id')!r:.20} in {image['file_name']}",
    )


def _fits(value: object) -> bool:
    """Return True for a finite number that a float64 can hold."""
    return is_finite(value) and abs(value) < 1e300


def _usable_mask(segmentation: object, size: tuple[int, int]) -> dict | list | None:
    if not segmentation:
        return None
    try:
        return usable(in_coco_form(segmentation)[0], *size)
    except FaultError:
        return None


def _enclosed(mask: dict | list) -> float:
    """Return the pixels of an RLE mask; of polygons, the sum of the areas that they enclose."""
    if isinstance(mask, dict):
        return float(coco_mask.area(compressed(mask)))
    total = 0.0
    for polygon in mask:
        x, y = np.asarray(polygon, np.float64).reshape(-1, 2).T
        total += abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    return total
