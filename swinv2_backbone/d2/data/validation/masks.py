"""The ``segmentation`` of an annotation in a COCO-format file: checked, and its area.

Legend: H, W are the height and width of the image in pixels. A polygon is [x, y, x, y, ...]. RLE is
alternating run lengths of 0 and 1 in column-major order, as a list or compressed to a string.
"""

from __future__ import annotations

from math import isfinite

from pycocotools import mask as coco_mask

from swinv2_backbone.d2.data.validation.report import Fault, FaultError

KIND = Fault(
    "segmentations that are neither polygons [[x, y, ...], ...] nor RLE {size, counts}",
    "write them as one of the two, or remove them",
)
POLYGON = Fault(
    "polygons with an odd number of coordinates, or a coordinate that is not a finite number",
    "draw them again, or remove these annotations",
)
FAR_POLYGON = Fault(
    "polygons that exceed their image by more than its longer side",
    "check the coordinates: x, y in pixels",
)
RLE_SIZE = Fault(
    "RLE masks of another size than their image", "encode them at the image's size, [height, width]"
)
RLE_COUNTS = Fault(
    "RLE masks whose counts are damaged or do not add up to the image", "encode them again"
)


def usable(segmentation: object, height: int, width: int) -> dict | list:
    """Return a segmentation without polygons of fewer than 3 points.

    Returns:
        The same object if there are no such polygons.

    Raises:
        FaultError: training or evaluation would fail on it, or read another mask.
    """
    if isinstance(segmentation, dict) and {"size", "counts"} <= segmentation.keys():
        _check_rle(segmentation, height, width)
        return segmentation
    if not isinstance(segmentation, list) or not all(isinstance(p, list) for p in segmentation):
        raise FaultError(KIND, f"{segmentation!r:.40}")
    for polygon in segmentation:
        _check_polygon(polygon, max(height, width))
    if all(len(polygon) >= 6 for polygon in segmentation):
        return segmentation
    return [polygon for polygon in segmentation if len(polygon) >= 6]


def mask_area(segmentation: dict | list, height: int, width: int) -> float:
    """Return the pixels of a usable mask, counted as COCO's evaluation counts predicted ones."""
    if isinstance(segmentation, dict):
        return float(coco_mask.area(compressed(segmentation)))
    parts = coco_mask.frPyObjects(segmentation, height, width)
    return float(coco_mask.area(coco_mask.merge(parts)))


def mask_box(segmentation: dict | list) -> list[float]:
    """Return the box [x, y, width, height] of a usable mask; of polygons, that of their corners."""
    if isinstance(segmentation, dict):
        parts = compressed(segmentation)
        return coco_mask.toBbox(parts).tolist()
    x = [number for polygon in segmentation for number in polygon[::2]]
    y = [number for polygon in segmentation for number in polygon[1::2]]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def compressed(rle: dict) -> dict:
    """Return usable RLE with compressed counts."""
    return coco_mask.frPyObjects(rle, *rle["size"]) if isinstance(rle["counts"], list) else rle


def _check_polygon(polygon: list, longest: int) -> None:
    try:
        finite = all(map(isfinite, polygon))
    except (TypeError, OverflowError):
        finite = False
    if not finite:
        raise FaultError(POLYGON, "not finite")
    if len(polygon) % 2:
        raise FaultError(POLYGON, f"{len(polygon)} coordinates")
    # Rasterizing such a polygon would take time and memory in proportion to its length.
    if polygon and (max(polygon) > 2 * longest or min(polygon) < -longest):
        raise FaultError(FAR_POLYGON, f"{min(polygon)} to {max(polygon)}")


def _check_rle(rle: dict, height: int, width: int) -> None:
    if rle["size"] != [height, width]:
        exchanged = ", exchanged" if rle["size"] == [width, height] else ""
        raise FaultError(RLE_SIZE, f"{rle['size']} instead of {[height, width]}{exchanged}")
    counts = rle["counts"]
    runs = _runs(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise FaultError(RLE_COUNTS, f"{counts!r:.40}")
    if sum(runs) != height * width:
        raise FaultError(RLE_COUNTS, f"{sum(runs)} instead of {height * width} pixels")


def _runs(counts: str) -> list[int] | None:
    """Decode the run lengths of COCO's compressed RLE; None if the string is damaged.

    pycocotools reads past the end of some damaged strings, and pads those that are too short.
    A character holds 5 bits, lowest first; one more bit is set if the number continues. Numbers are
    signed, and from the fourth on they are differences to the last but one.
    """
    runs: list[int] = []
    number = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return None
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        runs.append(number + runs[-2] if len(runs) > 2 else number)
        number = shift = 0
    return None if shift else runs
