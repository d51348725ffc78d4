"""Notes on how well the boxes, masks and areas of a whole set fit each other."""

from __future__ import annotations

import numpy as np

from swinv2_backbone.d2.data.validation.columns import Columns
from swinv2_backbone.d2.data.validation.crowds import POLYGONS
from swinv2_backbone.d2.data.validation.layouts import corners, overlap
from swinv2_backbone.d2.data.validation.report import Fault, Report

CUT = Fault(
    "boxes exactly one pixel larger than their masks",
    "an exporter drew the polygons through the centers of the outer pixels, which loses the last "
    "row and column of each mask: export RLE, or masks from their source, if the objects are small",
)
LOOSE = Fault(
    "boxes that fit their masks loosely (IoU 0.5 to 0.95)",
    "right if boxes and masks were drawn apart; an exporter may also have simplified the masks",
)
RECTANGLES = Fault(
    "masks that are the rectangle of their box",
    "right for rectangular objects; boxes converted to polygons and RLE sliced by SAHI give them "
    "too, and a model learns to predict them",
)
BOX_AREA = Fault(
    "areas that are those of the boxes, not of the masks",
    "right for AP of boxes; for masks, AP of small, medium and large objects is shifted: remove "
    "area, and it is computed",
)
FAR_AREA = Fault(
    "areas of less than half or more than twice the mask's",
    "AP of small, medium and large objects is wrong: remove area, and it is computed",
)

FEW = 5  # minimum number of annotations for a note
SMALL = 16  # pixels of a side below which rounding alone makes a loose fit
SHARE = 0.3
SHARE_OF_WRONG = 0.05


def check_fits(report: Report, columns: Columns, masked: np.ndarray) -> None:
    """Note what is unusual about boxes and masks that are in COCO's form.

    Args:
        report: takes the notes.
        columns: the annotations.
        masked: those with a mask, (N,) bool.
    """
    boxes, masks = columns.boxes[masked], columns.mask_boxes[masked]
    area, mask_area = columns.area[masked], columns.mask_area[masked]
    rows = np.flatnonzero(masked)
    box, mask = corners(boxes), corners(masks)
    off = np.abs(box - mask).max(1)
    large = (masks[:, 2:] >= SMALL).all(1)
    filled = mask_area >= 0.99999 * masks[:, 2] * masks[:, 3]
    whole_box = boxes[:, 2] * boxes[:, 3]
    known = (area > 0) & large

    def note(fault: Fault, found: np.ndarray, share: float) -> None:
        if found.sum() >= FEW and found.mean() >= share:
            names = ", ".join(columns.names[row] for row in rows[found][:3])
            report.note(
                fault, f"{found.mean():.0%} of all masks, such as {names}", int(found.sum())
            )

    cut = (np.abs(boxes - masks - [0, 0, 1, 1]) < 0.01).all(1)
    note(CUT, cut, SHARE)
    loose = large & (off > 2) & ~cut
    iou = overlap(box[loose], mask[loose])
    loose[loose] = (iou >= 0.5) & (iou < 0.95)
    note(LOOSE, loose, SHARE)
    polygons = columns.form[masked] == POLYGONS
    note(RECTANGLES, polygons & large & filled & (off < 1.5), SHARE_OF_WRONG)
    of_box = known & (np.abs(area / whole_box - 1) < 0.01) & (mask_area < 0.9 * whole_box)
    note(BOX_AREA, of_box, SHARE)
    ratio = area / mask_area
    note(FAR_AREA, known & ~of_box & ((ratio < 0.5) | (ratio > 2)), SHARE_OF_WRONG)
