"""Anchors that fit the sizes and shapes of a dataset's objects.

Legend: N objects, A anchors. Sizes are (height, width) in pixels of the resized image.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

STRIDES = (4, 8, 16, 32, 64)  # of p2 ... p6
FIRST_SIZES = (32, 24, 16, 12, 8, 48, 64)  # of p2, doubled at each level; the default first
RATIOS = (  # height / width; the default first
    (0.5, 1.0, 2.0),
    (0.33, 0.5, 1.0, 2.0, 3.0),
    (0.2, 0.5, 1.0, 2.0, 5.0),
)
REACHED = 0.5  # IoU with the best anchor, at which an object is easy to find
WORTH = 0.02  # share of objects that other anchors must reach in addition
SAMPLE = 20_000  # objects


@dataclass(frozen=True)
class Anchors:
    """Anchors of an RPN with one size at each level.

    Attributes:
        sizes: sides in pixels, from p2 to p6.
        ratios: height / width.
        reached: share of objects whose best anchor has an IoU of at least ``REACHED``.
        default_reached: the same for Detectron2's default anchors.
    """

    sizes: tuple[int, ...]
    ratios: tuple[float, ...]
    reached: float
    default_reached: float

    @property
    def are_default(self) -> bool:
        return self.sizes[0] == FIRST_SIZES[0] and self.ratios == RATIOS[0]


def choose_anchors(boxes: np.ndarray) -> Anchors:
    """Choose anchors for the sizes (N, 2) of objects.

    The default anchors are kept unless others reach ``WORTH`` more of the objects.
    """
    if len(boxes) > SAMPLE:
        boxes = np.random.default_rng(0).choice(boxes, SAMPLE, replace=False)
    shares = {
        (first, ratios): share_reached(boxes, sizes_from(first), ratios)
        for ratios, first in product(RATIOS, FIRST_SIZES)
    }
    default = shares[FIRST_SIZES[0], RATIOS[0]]
    best = max(shares.values())
    enough = default if default >= best - WORTH else best - WORTH / 4
    # The first is the one with the fewest ratios, and with the size nearest to the default.
    first, ratios = next(key for key, share in shares.items() if share >= enough)
    return Anchors(sizes_from(first), ratios, shares[first, ratios], default)


def sizes_from(first: int) -> tuple[int, ...]:
    """Return the size of each level, doubled from one to the next."""
    return tuple(first * 2**level for level in range(len(STRIDES)))


def share_reached(boxes: np.ndarray, sizes: tuple[int, ...], ratios: tuple[float, ...]) -> float:
    """Return the share of objects with an IoU of at least ``REACHED`` with their best anchor."""
    best = np.zeros(len(boxes))
    for (size, stride), ratio in product(zip(sizes, STRIDES), ratios):
        anchor = (size * ratio**0.5, size / ratio**0.5)
        best = np.maximum(best, shifted_iou(boxes, anchor, stride / 4))
    return float((best >= REACHED).mean())


def shifted_iou(boxes: np.ndarray, anchor: tuple[float, float], shift: float) -> np.ndarray:
    """Return (N,) the IoU of boxes with an anchor whose center is ``shift`` away along both axes.

    On a grid of anchors with stride s, the mean distance along an axis is s / 4.
    """
    # The overlap of two intervals of lengths a and b whose centers are d apart.
    overlap = np.minimum(np.minimum(boxes, anchor), (boxes + anchor) / 2 - shift).clip(min=0)
    shared = overlap.prod(axis=1)
    return shared / (boxes.prod(axis=1) + np.prod(anchor) - shared)
