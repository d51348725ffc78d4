"""Comparison of the boxes and masks of a whole set, which reveals the form they are written in.

A single annotation may have any numbers. If many boxes fit their masks only when they are read in
another form, that form was meant.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from swinv2_backbone.d2.data.validation.columns import Columns
from swinv2_backbone.d2.data.validation.crowds import RLE
from swinv2_backbone.d2.data.validation.extents import check_extents
from swinv2_backbone.d2.data.validation.fits import check_fits
from swinv2_backbone.d2.data.validation.layouts import (
    BOX_FORM,
    OTHERS,
    PIXELS,
    TRANSPOSED,
    UNITS,
    corners,
    in_pixels,
    overlap,
    read_as,
)
from swinv2_backbone.d2.data.validation.report import Fault, Report

MASK_FORM = Fault(
    "masks in another form than COCO's", "write polygons as x, y, x, y, ... in pixels of the image"
)
EITHER_FORM = Fault(
    "boxes or masks in another form than COCO's",
    "write each bbox as [x, y, width, height] and polygons as x, y, x, y, ..., in pixels of the "
    "image",
)
RLE_ROWS = Fault(
    "RLE masks that look like runs along the rows; COCO's run along the columns",
    "encode them by pycocotools, or transpose the mask before (order='F' in NumPy)",
)
ELSEWHERE = Fault(
    "boxes away from their own masks", "check which of the two belongs to another object or image"
)
MISFIT = Fault(
    "boxes that do not fit their own masks (IoU below 0.5), in no form that is known",
    "look at some of them; boxes of whole objects beside masks of their visible parts are right",
)

# A form is found where it fits this share of all masks of the set, while the numbers as they are
# have an IoU below MISS. In sound sets this happens to no annotation: boxes of whole objects with
# masks of visible parts miss too, but not so that another layout fits within two pixels.
SHARE = 0.05
MISS = 0.5
NEAR, NEAR_SHARE = 1.5, 0.03  # how far a corner may be off: pixels, and a share of the mask's side


class Match(NamedTuple):
    """A form that explains annotations: their rows, the fault to report, and its description."""

    rows: np.ndarray
    fault: Fault
    words: str


def check_forms(report: Report, columns: Columns, *, masks: bool) -> None:
    """Report boxes and masks that are not written in COCO's form.

    Args:
        report: takes the findings: errors for a form that is recognized, notes for what may be
            right.
        columns: the annotations.
        masks: the model learns from the masks; otherwise their faults are no errors.
    """
    masked = ~np.isnan(columns.mask_boxes[:, 0])
    usable = masked.copy()
    fitting = ~masked
    with np.errstate(all="ignore"):  # any finite numbers may be in a file
        if masked.any():
            fitting[masked] = _compare(report, columns, masked, masks)
        if ELSEWHERE in report.errors:
            fitting[:], usable[:] = True, False
        if fitting.any():
            check_extents(report, columns, fitting, usable, scaled=ELSEWHERE not in report.errors)
        if masked.any():
            check_fits(report, columns, masked)


def _compare(report: Report, columns: Columns, masked: np.ndarray, masks: bool) -> np.ndarray:
    """Compare boxes with masks; return which of the masked annotations fit, (M,) bool."""
    rows = np.flatnonzero(masked)
    box, mask = corners(columns.boxes[rows]), corners(columns.mask_boxes[rows])
    wrong = np.abs(box - mask).max(1) > 2 * NEAR
    iou = overlap(box[wrong], mask[wrong])
    wrong[wrong] = iou < MISS
    if not wrong.any():
        return ~wrong
    rows, iou = rows[wrong], iou[iou < MISS]
    match = _best(columns, rows)
    enough = max(2, SHARE * masked.sum())
    left = np.ones(len(rows), bool)
    if match and (match.rows.sum() >= enough or match.rows.sum() == masked.sum()):
        left = ~match.rows
        tell = report.error if masks or match.fault in (BOX_FORM, EITHER_FORM) else report.note
        row = rows[match.rows][0]
        first = f"{columns.names[row]} {columns.boxes[row].tolist()}"
        tell(match.fault, f"{match.words}, such as {first}", int(match.rows.sum()))
    if left.any():
        away = (iou < MISS / 5) & left
        many = masks and away.sum() > max(2, masked.sum() / 2)
        for row in rows[left]:
            tell = report.error if many else report.note
            tell(ELSEWHERE if many else MISFIT, columns.names[row])
    return ~wrong


def _best(columns: Columns, rows: np.ndarray) -> Match | None:
    """Return the form that fits most of the annotations whose box does not fit the mask."""
    box, mask = columns.boxes[rows], corners(columns.mask_boxes[rows])
    size = columns.image_size[rows]
    found = []
    for layout, unit in OTHERS:
        fits = _near(read_as(box, (layout, unit), size), mask)
        found.append(Match(fits, BOX_FORM, f"boxes look like {layout} in {unit}"))
    for unit in UNITS:
        if unit != PIXELS:
            fits = _near(corners(box), in_pixels(mask, unit, size))
            found.append(Match(fits, MASK_FORM, f"polygons look like {unit}"))
    found.append(_scaled(box, mask, size))
    best = max(found, key=lambda match: match.rows.sum())  # the first of equals
    by_rows = _runs_along_rows(columns, rows)
    transposed = best.words == f"boxes look like {TRANSPOSED} in {PIXELS}"
    if by_rows.sum() > best.rows.sum():
        return Match(by_rows, RLE_ROWS, "as their boxes show")
    if by_rows.any() and transposed and by_rows.sum() == best.rows.sum():  # square images
        words = "boxes look like y before x, or else RLE masks like runs along the rows"
        return Match(by_rows, EITHER_FORM, words)
    if transposed:
        return _blamed(columns, rows, best, "{} look like y before x")
    return best if best.rows.any() else None


def _near(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return which corners are equal up to rounding, (N,) bool."""
    side = (other[:, 2:] - other[:, :2]).clip(0)
    side = np.concatenate([side, side], 1)
    most = np.minimum(NEAR, side / 4) + NEAR_SHARE * side
    return (np.abs(one - other) <= most).all(1)


def _blamed(columns: Columns, rows: np.ndarray, match: Match, words: str) -> Match:
    """Say whether boxes or masks have the other form: those that exceed their images."""
    chosen = rows[match.rows]
    far = columns.image_size[chosen][:, ::-1] + 1
    box, mask = (
        int((corners(boxes[chosen])[:, 2:] > far).any(1).sum())
        for boxes in (columns.boxes, columns.mask_boxes)
    )
    if box == mask:
        return Match(match.rows, EITHER_FORM, words.format("boxes or masks"))
    if box > mask:
        return Match(match.rows, BOX_FORM, words.format("boxes"))
    return Match(match.rows, MASK_FORM, words.format("polygons"))


def _scaled(box: np.ndarray, mask: np.ndarray, size: np.ndarray) -> Match:
    """Find boxes that fit their masks after scaling by one factor, or from one image size."""
    old = corners(box)
    factor = (mask[:, :2] + mask[:, 2:]) / (old[:, :2] + old[:, 2:])
    fits = (np.isfinite(factor) & (factor > 0)).all(1) & _near(old * np.tile(factor, 2), mask)
    words, best = "", np.zeros(len(box), bool)
    for values, text in (
        (1 / factor, "of images {:.3g} times as wide and {:.3g} times as high"),
        (size[:, ::-1] / factor, "of images {:.0f} wide and {:.0f} high"),
    ):
        if fits.sum() < 3:  # one or two boxes always share a factor
            break
        middle = np.median(values[fits], 0)
        same = fits & (np.abs(np.log(np.where(fits[:, None], values, 1) / middle)) < 0.05).all(1)
        if same.sum() > max(2, best.sum()):
            best, words = same, text.format(*middle)
    return Match(best, EITHER_FORM, f"boxes look like pixels {words}")


def _runs_along_rows(columns: Columns, rows: np.ndarray) -> np.ndarray:
    """Return which RLE masks would be in their boxes if their runs were read along rows.

    Pixel n of the runs is read as column n // H. Along rows, the first pixel of an object is in the
    first row of its box and the last pixel in the last row.
    """
    x, y, w, h = columns.boxes[rows].T
    height, width = columns.image_size[rows].T
    left, _, wide, _ = columns.mask_boxes[rows].T
    first, last = (y * width + x) / height, ((y + h - 1) * width + x) / height
    most, more = 1 + width / height, w / height
    return (
        (columns.form[rows] == RLE)
        & (left > first - most)
        & (left < first + more + most)
        & (left + wide - 1 > last - most)
        & (left + wide - 1 < last + more + most)
    )
