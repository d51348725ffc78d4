"""Polygons of a COCO-format file in other forms than COCO's, and those that are holes.

COCO's form is a list of polygons, each [x, y, x, y, ...]; all of them are parts of the object, so
that a polygon inside another one changes nothing.
"""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.data.validation.report import Fault

FLAT = Fault("segmentations that are one flat list of coordinates", "rewritten as [[x, y, ...]]")
POINTS = Fault("polygons as lists of points [x, y]", "rewritten as [x, y, x, y, ...]")
NESTED = Fault("polygons nested one level too deep", "rewritten as [[x, y, ...], ...]")


def in_coco_form(segmentation: object) -> tuple[object, Fault | None]:
    """Rewrite polygons in COCO's form.

    Returns:
        The same object and None if it is in COCO's form, or in no form that is known; otherwise
        polygons and the fault that was repaired.
    """
    if not isinstance(segmentation, list) or not segmentation:
        return segmentation, None
    if all(map(_is_number, segmentation)):
        return [segmentation], FLAT
    if not all(isinstance(part, list) for part in segmentation):
        return segmentation, None
    if _are_points(segmentation):
        return [_flat(segmentation)], POINTS
    fault, polygons = None, []
    for part in segmentation:
        if not part or not all(isinstance(inner, list) for inner in part):
            polygons.append(part)
        elif _are_points(part):
            fault = POINTS
            polygons.append(_flat(part))
        else:
            fault = fault or NESTED
            polygons += [_flat(inner) if _are_points(inner) else inner for inner in part]
    return (polygons, fault) if fault else (segmentation, None)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_points(part: object) -> bool:
    """Return True for a list of three or more [x, y]; a polygon would have six numbers."""
    return (
        isinstance(part, list)
        and len(part) > 2
        and all(isinstance(p, list) and len(p) == 2 and all(map(_is_number, p)) for p in part)
    )


def _flat(points: list) -> list:
    return [number for point in points for number in point]


def depths(polygons: list[list[float]]) -> list[int]:
    """Return for each polygon the number of polygons that it lies inside of."""
    corners = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in polygons]
    low = np.array([points.min(0) for points in corners])
    high = np.array([points.max(0) for points in corners])
    result = [0] * len(corners)
    inside = (low[:, None] >= low) & (high[:, None] <= high)
    for inner, outer in np.argwhere(inside.all(-1)).tolist():
        smaller = np.prod(high[inner] - low[inner]) < np.prod(high[outer] - low[outer])
        if smaller and _contains(corners[outer], corners[inner]).all():
            result[inner] += 1
    return result


def _contains(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return which points (P, 2) are inside a polygon (N, 2), by the even-odd rule: (P,) bool."""
    x, y = points[:, 0, None], points[:, 1, None]
    x1, y1 = polygon[:, 0], polygon[:, 1]
    x2, y2 = np.roll(x1, -1), np.roll(y1, -1)
    crosses = (y1 > y) != (y2 > y)
    at = x1 + (y - y1) * (x2 - x1) / np.where(y2 == y1, 1, y2 - y1)
    return ((crosses & (x < at)).sum(1) % 2).astype(bool)


def with_holes(polygons: list[list[float]], height: int, width: int) -> dict | None:
    """Return the RLE mask in which polygons inside others are holes; None if there are none.

    A polygon inside a hole is a part of the object again.
    """
    level = depths(polygons) if len(polygons) > 1 else [0]
    if not any(level):
        return None
    mask = np.zeros((height, width), np.uint8)
    for depth, polygon in sorted(zip(level, polygons), key=lambda pair: pair[0]):
        part = coco_mask.decode(coco_mask.frPyObjects([polygon], height, width))[..., 0]
        mask[part.astype(bool)] = depth % 2 == 0
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": [height, width], "counts": rle["counts"].decode()}
