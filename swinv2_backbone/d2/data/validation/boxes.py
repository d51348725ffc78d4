"""The ``bbox`` of an annotation in a COCO-format file: checked, and clipped to its image."""

from __future__ import annotations

from sys import float_info
from typing import TypeGuard

from swinv2_backbone.d2.data.validation.report import Fault, FaultError

# Pixels by which a box may exceed its image: a rounding error, which is left as it is.
ROUNDING = 0.05

BAD_BOX = Fault("boxes that are not four finite numbers", "write them as [x, y, width, height]")
BOX_OUTSIDE = Fault("boxes entirely outside their image", "check that they are in its pixels")
CLIPPED = Fault("boxes partly outside their image", "clipped to it")
NEW_BOX = Fault("annotations without a bbox", "computed from the mask")
EMPTY_BOX = Fault("annotations whose box has no width or no height", "dropped")


def clipped(box: object, height: int, width: int) -> list[float] | None:
    """Clip a box [x, y, width, height] to an image of ``height`` x ``width`` pixels.

    Returns:
        The clipped box; the same object if it fits; None if it has no area.

    Raises:
        FaultError: it is not a box, or it does not overlap the image.
    """
    if not (isinstance(box, list) and len(box) == 4 and all(map(is_finite, box))):
        raise FaultError(BAD_BOX, f"{box!r:.60}")
    x, y, w, h = box
    if x + w <= x or y + h <= y:  # also a side that rounding loses
        return None
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if right <= left or bottom <= top:
        raise FaultError(BOX_OUTSIDE, f"{box}")
    if max(left - x, top - y, x + w - right, y + h - bottom) <= ROUNDING:
        return box
    return [left, top, right - left, bottom - top]


def is_finite(value: object) -> TypeGuard[float]:
    """Return True for a finite number; also an integer must be one as a float."""
    return isinstance(value, (int, float)) and abs(value) <= float_info.max
