"""The annotations of a COCO-format file that are plainly sound, found many at a time.

Only the others are checked one by one, which takes a hundred times as long.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swinv2_backbone.d2.data.storage.columns import (
    ABSENT,
    POLYGONS,
    Columns,
    per_annotation,
    per_polygon,
    polygon_boxes,
)
from swinv2_backbone.d2.data.validation.annotations import AnnotationChecker


def plainly_sound(
    annotations: Sequence[dict], columns: Columns, sizes: np.ndarray, checker: AnnotationChecker
) -> np.ndarray:
    """Return (N,) True for annotations that ``checker`` neither repairs nor reports.

    RLE masks are never plainly sound, because their counts have to be decoded; nor are polygons
    that may lie inside others, and keypoints.

    Args:
        annotations: the annotations as the file has them.
        columns: the same in columns.
        sizes: (M, 2) height and width of the images; 0 if unknown.
    """
    known = (columns.image >= 0) & (columns.category >= 0)
    if not len(sizes):
        return known & False
    height, width = sizes[np.where(known, columns.image, 0)].T
    plain = (columns.crowd == 0) | (columns.crowd == 1)
    if checker.for_evaluation:
        plain &= (columns.area > 0) & (columns.area < np.inf)
    else:
        plain |= columns.crowd == -1
    if checker.crowds == "objects":
        plain &= columns.crowd != 1
    x, y, w, h = columns.box.T
    inside = (x + w > x) & (y + h > y) & (np.minimum(x, y) >= 0)
    inside &= (x + w <= width) & (y + h <= height)
    needed = checker.masks & ((columns.crowd < 1) | checker.for_evaluation)
    whole = (columns.kind == POLYGONS) & _near(columns, np.maximum(height, width))
    whole |= (columns.kind == ABSENT) & ~needed
    other = [bool(one.get("ignore") or one.get("keypoints")) for one in annotations]
    return known & plain & inside & whole & ~np.array(other, bool) & ~_nested(columns)


def _near(columns: Columns, longest: np.ndarray) -> np.ndarray:
    """Return (N,) True where all coordinates are finite and not far from the image."""
    least, most = (
        per_annotation(
            per_polygon(columns.coordinates, columns.length, function),
            columns.count,
            function,
            np.nan,
        )
        for function in (np.minimum, np.maximum)
    )
    return (least >= -longest) & (most <= 2 * longest)  # False for NaN and infinity


def _nested(columns: Columns) -> np.ndarray:
    """Return (N,) True where the box of a polygon contains that of another polygon."""
    result = np.zeros(len(columns), bool)
    first = np.cumsum(columns.count) - columns.count
    alone = Columns(**vars(columns) | {"count": np.ones(len(columns.length), np.int64)})
    boxes = polygon_boxes(alone)
    for count in np.unique(columns.count[columns.count > 1]).tolist():
        rows = np.flatnonzero(columns.count == count)
        some = boxes[first[rows, None] + np.arange(count)]  # (rows, count, 4)
        low, high = some[..., :2], some[..., 2:]
        inner = (low[:, :, None] >= low[:, None]) & (high[:, :, None] <= high[:, None])
        result[rows] = inner.all(-1).sum((1, 2)) > count  # each contains itself
    return result
