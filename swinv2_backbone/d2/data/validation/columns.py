"""The annotations of a COCO-format file as columns, for the checks of the whole set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.data.storage import columns as storage
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
        names: the annotations by name.
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


class Names(Sequence[str]):
    """The names of annotations, built on access.

    Args:
        number: (N,) places in the file.
        name: place -> name.
    """

    def __init__(self, number: np.ndarray, name: Callable[[int], str]):
        self.number, self.name = number, name

    def __len__(self) -> int:
        return len(self.number)

    def __getitem__(self, row: Any) -> Any:
        return self.name(int(self.number[row]))


class ColumnsBuilder:
    """Collects the columns of a set: sound annotations in bulk, all others one by one.

    Args:
        checker: checker of the file.
        category_ids: category ids by their row in the storage columns.
        sizes: (M, 2) height and width of the images.
        name: place of an annotation in the file -> its name.
    """

    def __init__(
        self,
        checker: AnnotationChecker,
        category_ids: Sequence[int],
        sizes: np.ndarray,
        name: Callable[[int], str],
    ):
        self.checker, self.name = checker, name
        self.category_ids, self.sizes = np.array(category_ids, np.int64), sizes
        self._parts: list[tuple] = []  # places, and all columns except names
        self._rows: list[tuple] = []

    def add_sound(self, found: storage.Columns, number: np.ndarray) -> None:
        """Add sound annotations, with their places (N,) in the file."""
        if not len(found):
            return
        corners = storage.polygon_boxes(found)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        self._parts.append(
            (
                number,
                self.category_ids[found.category],
                found.crowd == 1,
                found.kind,
                found.box,
                boxes,
                self.sizes[found.image],
                found.area,
                storage.polygon_areas(found),
            )
        )

    def add(self, number: int, annotation: object, repaired: dict | None) -> None:
        """Add an annotation as the file has it, with the result of ``checker.check``."""
        if isinstance(annotation, dict) and (row := _row(annotation, repaired, self.checker)):
            self._rows.append((number, *row))

    def finish(self) -> Columns:
        """Return the columns of all annotations added so far, in the order of the file."""
        rows = [np.array(column) for column in zip(*self._rows)]
        parts = [*self._parts, *([tuple(rows)] if rows else [])]
        if not parts:
            one, two, four = np.zeros(0), np.zeros((0, 2)), np.zeros((0, 4))
            none = np.zeros(0, np.int64)
            return Columns(none, one == 1, none, four, four, two, one, one, [])
        number, *columns = (np.concatenate(column) for column in zip(*parts))
        order = np.argsort(number)
        ordered: list[Any] = [column[order] for column in columns]
        return Columns._make([*ordered, Names(number[order], self.name)])


def _row(annotation: dict, repaired: dict | None, checker: AnnotationChecker) -> tuple | None:
    """Return one annotation's values of all columns but ``names``; None if it has no row."""
    image = checker.images.get(checker.image_ids.find(annotation.get("image_id")))  # type: ignore[arg-type]  # None is no id
    box = annotation.get("bbox") or (repaired or {}).get("bbox")
    if image is None or not (image["height"] and image["width"]):
        return None
    if not (isinstance(box, list) and len(box) == 4 and all(map(is_finite, box))):
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
        list(map(float, box)),
        mask_box(mask) if mask else [np.nan] * 4,
        size,
        float(area) if is_finite(area) else np.nan,
        _enclosed(mask) if mask else np.nan,
    )


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
