"""Annotations of a COCO-format file as columns of numbers, in a tenth of the memory of dicts.

Legend: N annotations, P polygons, C coordinates of all polygons. The segmentation of an annotation
is absent, a number of polygons, or RLE.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

ABSENT, POLYGONS, RLE, OTHER = range(4)  # kinds of segmentation; OTHER: none that can be used
LEAST = 6  # coordinates of a polygon
PER_ANNOTATION = ("image", "category", "crowd", "box", "area", "kind", "count")


@dataclass
class Columns:
    """N annotations.

    Attributes:
        image, category: (N,) rows of the image and the class; -1: unknown.
        crowd: (N,) ``iscrowd``; -1: missing; -2: invalid.
        box: (N, 4) x, y, width, height.
        area: (N,) ``area``; NaN: missing.
        kind: (N,) kind of the segmentation.
        count: (N,) number of polygons.
        length: (P,) number of coordinates of each polygon.
        coordinates: (C,) x, y, x, y, ... of all polygons, one after another.
        rle: RLE masks as in the file, in the order of the annotations of this kind.
        keypoints: (N,) lists, None where there are none; empty if there are none at all.
    """

    image: np.ndarray
    category: np.ndarray
    crowd: np.ndarray
    box: np.ndarray
    area: np.ndarray
    kind: np.ndarray
    count: np.ndarray
    length: np.ndarray
    coordinates: np.ndarray
    rle: list[dict]
    keypoints: list[list | None]

    def __len__(self) -> int:
        return len(self.image)

    def select(self, chosen: np.ndarray) -> Columns:
        """Return the annotations for which (N,) bool ``chosen`` is True."""
        if chosen.all():
            return self
        polygon = np.repeat(chosen, self.count)
        masks = chosen[self.kind == RLE]
        points = self.keypoints
        return Columns(
            **{name: getattr(self, name)[chosen] for name in PER_ANNOTATION},
            length=self.length[polygon],
            coordinates=self.coordinates[np.repeat(polygon, self.length)],
            rle=[mask for mask, keep in zip(self.rle, masks) if keep],
            keypoints=[one for one, keep in zip(points, chosen) if keep] if points else [],
        )


def columns_of(
    annotations: Sequence[Any], images: Mapping[Any, int], categories: Mapping[Any, int]
) -> Columns | None:
    """Put annotations into columns.

    Args:
        images, categories: row by id.

    Returns:
        The columns; None if a value has an unexpected type, so that it does not fit into them.
    """
    try:
        masks = [one.get("segmentation") for one in annotations]
        kinds = list(map(_kind, masks))
        polygons = [mask if kind == POLYGONS else () for mask, kind in zip(masks, kinds)]
        keypoints = [one.get("keypoints") for one in annotations]
        return Columns(
            image=_rows([one["image_id"] for one in annotations], images),
            category=_rows([one["category_id"] for one in annotations], categories),
            crowd=_integers(_flag(one) for one in annotations),
            box=_numbers([one["bbox"] for one in annotations], 4).reshape(-1, 4),
            area=np.array([_or_nan(one.get("area")) for one in annotations], np.float64),
            kind=np.array(kinds, np.int8),
            count=_integers(map(len, polygons)),
            length=_integers(map(len, chain.from_iterable(polygons))),
            coordinates=_numbers(chain.from_iterable(polygons)),
            rle=[mask for mask, kind in zip(masks, kinds) if kind == RLE],
            keypoints=keypoints if any(keypoints) else [],
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None


def _kind(mask: object) -> int:
    if not mask:
        return ABSENT
    if type(mask) is list:
        fits = all(type(p) is list and len(p) >= LEAST and not len(p) % 2 for p in mask)
        return POLYGONS if fits else OTHER
    return RLE if type(mask) is dict else OTHER


def _flag(annotation: Mapping[str, Any]) -> int:
    value = annotation.get("iscrowd", -1)
    if value in (0, 1):
        return int(value)
    return -2 if "iscrowd" in annotation else -1


def _or_nan(value: object) -> Any:
    return value if type(value) in (int, float) else np.nan


def _rows(keys: list, rows: Mapping[Any, int]) -> np.ndarray:
    """Return the row of each id; raise TypeError if one is neither a whole number nor a string."""
    if not {*map(type, keys)} <= {int, str}:  # a dict takes 7.0 and True for 7 and 1
        raise TypeError("ids")
    return _integers(rows.get(key, -1) for key in keys)


def _integers(values: Iterable[int]) -> np.ndarray:
    return np.fromiter(values, np.int64)


def _numbers(lists: Iterable[list], size: int | None = None) -> np.ndarray:
    """Join lists of numbers, each of ``size`` if that is given; raise TypeError for other values.

    NumPy itself would read the string "12" as 12.
    """
    found = array("d")
    for one in lists:
        if size is not None and len(one) != size:
            raise TypeError(f"{size} numbers expected")
        found.fromlist(one)
    return np.frombuffer(found, np.float64) if found else np.zeros(0)


def per_polygon(values: np.ndarray, length: np.ndarray, function: np.ufunc) -> np.ndarray:
    """Reduce values, one for each coordinate, to one for each polygon.

    Args:
        values: (C,) in the order of the coordinates.
        length: (P,) number of values of each polygon; none is 0.
    """
    return function.reduceat(values, np.cumsum(length) - length) if len(length) else values[:0]


def per_annotation(
    values: np.ndarray, count: np.ndarray, function: np.ufunc, absent: float
) -> np.ndarray:
    """Reduce values, one for each polygon, to one for each annotation; ``absent`` for none."""
    result = np.full(len(count), absent, np.float64)
    has = count > 0
    if has.any():
        result[has] = per_polygon(values, count[has], function)
    return result


def polygon_boxes(columns: Columns) -> np.ndarray:
    """Return (N, 4) x0, y0, x1, y1 of the coordinates of all polygons; NaN without polygons."""
    half = columns.length // 2
    sides: list[tuple[int, np.ufunc]] = [(0, np.minimum), (1, np.minimum)]
    sides += [(0, np.maximum), (1, np.maximum)]
    found = [
        per_annotation(
            per_polygon(columns.coordinates[axis::2], half, function),
            columns.count,
            function,
            np.nan,
        )
        for axis, function in sides
    ]
    return np.stack(found, axis=1)


def polygon_areas(columns: Columns) -> np.ndarray:
    """Return (N,) areas of the polygons, summed for each annotation; NaN without polygons."""
    x, y, half = columns.coordinates[0::2], columns.coordinates[1::2], columns.length // 2
    following = np.arange(1, len(x) + 1)
    if len(half):
        following[np.cumsum(half) - 1] = np.cumsum(half) - half  # a polygon is closed
    twice = per_polygon(x * y[following] - x[following] * y, half, np.add)
    return per_annotation(np.abs(twice) / 2, columns.count, np.add, np.nan)
