"""Checks of the boxes of a whole set: impossible values reveal the form they are written in.

Each form is recognized by what sound sets do not have, even if their boxes exceed the images (boxes
of whole objects do, at every side of an image alike).
"""

from __future__ import annotations

import numpy as np

from swinv2_backbone.d2.data.validation.columns import Columns
from swinv2_backbone.d2.data.validation.layouts import (
    BOX_FORM,
    COCO_LAYOUT,
    FRACTIONS,
    LAYOUTS,
    PIXELS,
    TRANSPOSED,
    corners,
    read_as,
    valid,
)
from swinv2_backbone.d2.data.validation.report import Fault, Report

SMALLER = Fault(
    "boxes that all lie in the upper left part of their images",
    "right if the objects are there; otherwise they are in pixels of smaller copies of the images",
)
MOST = 0.99  # share of the boxes of a set that a form must make valid
EXCEEDING = 0.05  # share of the boxes that must exceed their images before a form is sought
SLACK, SLACK_SHARE = 2, 0.02  # tolerance beyond the image: pixels, and share of the side


def check_extents(
    report: Report, columns: Columns, fitting: np.ndarray, masked: np.ndarray, *, scaled: bool
) -> None:
    """Report boxes whose values are impossible, or fit another form.

    Args:
        report: takes the findings.
        columns: the annotations.
        fitting: those without a mask, or with one that fits the box, (N,) bool. Only these are
            compared with their images.
        masked: those with a mask, (N,) bool. Their boxes have COCO's layout if they fit.
        scaled: boxes outside their images may be in pixels of larger ones.
    """
    boxes, size = columns.boxes[fitting], columns.image_size[fitting]
    unmasked = not masked[fitting].any()
    words = _fractions(boxes, size, unmasked) or _exceeding(boxes, size, unmasked)
    words = words or (_larger(boxes, size) if scaled else "")
    if words:
        name = columns.names[int(np.flatnonzero(fitting)[0])]
        what = "boxes" if unmasked else "boxes and masks"
        report.error(
            BOX_FORM, f"{what} look like {words}, such as {name} {boxes[0].tolist()}", len(boxes)
        )
        return
    reach = (corners(boxes)[:, 2:] / size[:, ::-1]).max(0)
    if len(boxes) >= 200 and (reach < 0.6).all():
        report.note(
            SMALLER,
            f"none beyond {reach[0]:.0%} of the width and {reach[1]:.0%} of the height",
            len(boxes),
        )


def _fractions(boxes: np.ndarray, size: np.ndarray, unmasked: bool) -> str:
    """Return the form of boxes that are all fractions of their images; "" for others.

    Boxes of whole objects may exceed 0 and 1. A sound box of whole pixels may be 0, 0, 1, 1.
    """
    small = (np.abs(boxes) <= 2).all(1) & (size >= 16).all(1)
    if small.mean() < MOST or (boxes == np.round(boxes)).all(1).mean() > 0.5:
        return ""
    # Fractions do not show the order of x and y.
    layouts = [layout for layout in LAYOUTS if unmasked and not layout.startswith("y")]
    found = [layout for layout in layouts if _share(boxes, (layout, FRACTIONS), size) >= MOST]
    return f"{' or '.join(found) or COCO_LAYOUT} in {FRACTIONS}"


def _exceeding(boxes: np.ndarray, size: np.ndarray, unmasked: bool) -> str:
    """Return the form of a set in which many boxes exceed their images; "" if unknown."""
    over = corners(boxes)[:, 2:] - size[:, ::-1] * (1 + SLACK_SHARE) - SLACK
    exceeding = (over > 0).any(1)
    if exceeding.sum() < 3 or exceeding.mean() < EXCEEDING:
        return ""
    possible = {layout for layout in LAYOUTS if _share(boxes, (layout, PIXELS), size) >= MOST}
    tests = {
        "x1, y1, x2, y2": unmasked and exceeding.mean() >= 5 * EXCEEDING,
        "y1, x1, y2, x2": unmasked and exceeding.mean() >= 5 * EXCEEDING,
        "center x, center y, width, height": unmasked and _centered(boxes, over),
        TRANSPOSED: _transposed(boxes, size),
    }
    found = [layout for layout, passed in tests.items() if passed and layout in possible]
    if found:
        return f"{' or '.join(found)} in {PIXELS}"
    return ""


def _larger(boxes: np.ndarray, size: np.ndarray) -> str:
    """Tell how much larger the images must be to contain the boxes; "" for a few boxes."""
    outside = (boxes[:, :2] >= size[:, ::-1]).any(1)
    if outside.sum() < 3 or outside.mean() < EXCEEDING:
        return ""
    factor = (corners(boxes)[:, 2:] / size[:, ::-1]).max()
    return f"{PIXELS} of images up to {factor:.3g} times as large"


def _centered(boxes: np.ndarray, over: np.ndarray) -> bool:
    """Return True if boxes exceed their images to the right, but never come near the left.

    In sound sets, boxes come as near to the left border as to the right one. If boxes exceed the
    images at all, ten of ten do so on the right in one of a thousand sets. Objects may be on the
    right only, though, so that the form must also place boxes beside the left border.
    """
    right = (over[:, 0] > 0).sum()
    left = (boxes[:, 0] < boxes[:, 2] / 2 - 1).sum()
    beside = (boxes[:, 0] < boxes[:, 2]).sum()  # as centers; the mirror image of ``right``
    return bool(right >= 10 and left <= 0.01 * right and beside >= right / 3)


def _transposed(boxes: np.ndarray, size: np.ndarray) -> bool:
    """Return True if the sides of the images differ enough for a box to show the order of x, y."""
    long = size.max(1) > 1.15 * size.min(1)
    return bool(len(boxes) >= 20 and long.mean() > 0.5)


def _share(boxes: np.ndarray, form: tuple[str, str], size: np.ndarray) -> float:
    return float(valid(read_as(boxes, form, size), size).mean())
