"""The image size at which a detector can see a dataset's objects.

Legend: N objects. Sizes are (height, width) in pixels; sides are square roots of areas.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from swinv2_backbone.d2.suggestion.objects import ObjectSizes

SHORT_EDGES = (256, 384, 512, 640, 800, 1024, 1280, 1536)
USUAL = 512  # shorter ones are for small images and little memory
# The finest feature map has one cell for 4 pixels. Ten percent of the objects may be smaller.
SMALL, QUANTILE = 24.0, 0.10
ENLARGED = 2.0  # more enlargement adds blurred pixels, and no detail
ASPECT_QUANTILE = 0.99  # of the images; longer ones are reduced further


@dataclass(frozen=True)
class Resolution:
    """Sizes of the images in training.

    Attributes:
        short, longest: largest short edge and largest long edge, in pixels.
        small: side in pixels that ten percent of the objects do not reach at this size.
        sees_small: True if this side is at least ``SMALL``.
    """

    short: int
    longest: int
    small: float
    sees_small: bool

    @property
    def short_edges(self) -> list[int]:
        """The short edges that training draws from: down to six tenths, in steps of 32."""
        return [*range(round(0.6 * self.short / 32) * 32, self.short, 32), self.short]


def choose_resolution(objects: ObjectSizes, largest: int = SHORT_EDGES[-1]) -> Resolution:
    """Return the smallest size at which nine of ten objects have a side of ``SMALL`` pixels.

    If there is none, it is the largest size that enlarges images at most ``ENLARGED`` times. Sizes
    below ``USUAL`` are chosen only if they are this largest size.

    Args:
        largest: upper limit of the short edge.
    """
    typical = float(np.median(objects.images.min(axis=1)))
    allowed = [edge for edge in SHORT_EDGES if edge <= min(largest, ENLARGED * typical)]
    usual = [edge for edge in allowed if edge >= USUAL]
    for edge in usual or allowed[-1:] or SHORT_EDGES[:1]:
        found = resolution_of(objects, edge)
        if found.sees_small:
            break
    return found


def resolution_of(objects: ObjectSizes, short: int) -> Resolution:
    """Return the sizes with a given short edge."""
    aspects = objects.images.max(axis=1) / objects.images.min(axis=1)
    longest = int(np.ceil(short * max(np.quantile(aspects, ASPECT_QUANTILE), 5 / 3) / 32) * 32)
    sides = np.sqrt(scaled_boxes(objects, short, longest).prod(axis=1))
    small = float(np.quantile(sides, QUANTILE))
    return Resolution(short, longest, small, small >= SMALL)


def scaled_boxes(objects: ObjectSizes, short: int, longest: int) -> np.ndarray:
    """Return (N, 2) the sizes of the boxes in images that are resized as in training."""
    scale = np.minimum(short / objects.images.min(axis=1), longest / objects.images.max(axis=1))
    return objects.boxes * scale[objects.image, None]
