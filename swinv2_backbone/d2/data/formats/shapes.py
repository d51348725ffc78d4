"""Shapes of annotation tools as masks and corners.

Legend: H, W are in pixels. A pixel is in a shape if its center is: (x + 0.5, y + 0.5) for column x
and row y.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, radians, sin

import numpy as np


def ellipse_mask(
    size: tuple[int, int], center: Sequence[float], radii: Sequence[float], degrees: float = 0.0
) -> np.ndarray:
    """Return the mask (H, W) of an ellipse, rotated clockwise by ``degrees``."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    x, y = x - center[0], y - center[1]
    c, s = cos(radians(degrees)), sin(radians(degrees))
    along, across = c * x + s * y, c * y - s * x
    return (along / max(radii[0], 1e-9)) ** 2 + (across / max(radii[1], 1e-9)) ** 2 <= 1


def rotated_corners(
    box: Sequence[float], degrees: float, pivot: tuple[float, float]
) -> list[tuple[float, float]]:
    """Return the corners of a box [x, y, width, height] rotated clockwise about ``pivot``."""
    x, y, w, h = box
    c, s = cos(radians(degrees)), sin(radians(degrees))
    return [
        (pivot[0] + c * (a - pivot[0]) - s * (b - pivot[1]),
         pivot[1] + s * (a - pivot[0]) + c * (b - pivot[1]))
        for a, b in ((x, y), (x + w, y), (x + w, y + h), (x, y + h))
    ]  # fmt: skip


def box_around(points: Sequence[Sequence[float]]) -> list[float]:
    """Return the box [x, y, width, height] around points."""
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def pasted(mask: np.ndarray, left: int, top: int, size: tuple[int, int]) -> np.ndarray:
    """Return a mask (H, W) with a smaller one at (left, top), cropped to the image."""
    result = np.zeros(size, bool)
    height, width = mask.shape
    y, x = max(top, 0), max(left, 0)
    target = result[y : max(top + height, 0), x : max(left + width, 0)]
    target[:] = mask[y - top : y - top + target.shape[0], x - left : x - left + target.shape[1]]
    return result
