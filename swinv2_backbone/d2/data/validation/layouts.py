"""The layouts and units in which four numbers can describe a box.

Legend: N is the number of boxes. Corners are x1, y1, x2, y2 in pixels, (N, 4). Image sizes are
height, width, (N, 2).
"""

from __future__ import annotations

from itertools import product

import numpy as np

from swinv2_backbone.d2.data.validation.report import Fault

# Layout -> rows of the matrix that maps its four numbers to x1, y1, x2, y2.
LAYOUTS = {
    "x, y, width, height": ((1, 0, 0, 0), (0, 1, 0, 0), (1, 0, 1, 0), (0, 1, 0, 1)),
    "x1, y1, x2, y2": ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)),
    "center x, center y, width, height": (
        (1, 0, -0.5, 0),
        (0, 1, 0, -0.5),
        (1, 0, 0.5, 0),
        (0, 1, 0, 0.5),
    ),
    "y, x, height, width": ((0, 1, 0, 0), (1, 0, 0, 0), (0, 1, 0, 1), (1, 0, 1, 0)),
    "y1, x1, y2, x2": ((0, 1, 0, 0), (1, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0)),
}
# Unit -> the side of an image in this unit; 0 for pixels.
UNITS = {"pixels": 0, "fractions (0 to 1)": 1, "percent": 100, "thousandths": 1000}
COCO_LAYOUT, PIXELS, FRACTIONS = "x, y, width, height", "pixels", "fractions (0 to 1)"
TRANSPOSED = "y, x, height, width"
OTHERS = [form for form in product(LAYOUTS, UNITS) if form != (COCO_LAYOUT, PIXELS)]

BOX_FORM = Fault(
    "boxes in another form than COCO's",
    "write each bbox as [x, y, width, height] in pixels of the image, x and y of the upper left "
    "corner",
)


def corners(boxes: np.ndarray, layout: str = COCO_LAYOUT) -> np.ndarray:
    """Convert boxes (N, 4) from a layout to corners."""
    return boxes @ np.array(LAYOUTS[layout], np.float64).T


def in_pixels(values: np.ndarray, unit: str, image_size: np.ndarray) -> np.ndarray:
    """Convert corners (N, 4) from a unit to pixels."""
    if not UNITS[unit]:
        return values
    return values * image_size[:, [1, 0, 1, 0]] / UNITS[unit]


def read_as(boxes: np.ndarray, form: tuple[str, str], image_size: np.ndarray) -> np.ndarray:
    """Convert boxes from a form, which is a layout and a unit, to corners in pixels."""
    layout, unit = form
    return in_pixels(corners(boxes, layout), unit, image_size)


def valid(box: np.ndarray, image_size: np.ndarray) -> np.ndarray:
    """Return which corners, (N, 4), are those of a box within its image, (N,) bool."""
    near, far = box[:, :2], box[:, 2:]
    inside = (near >= -1) & (far <= image_size[:, ::-1] + 1) & (far > near)
    return np.asarray(inside.all(1))


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the intersection over union of corners, (N,); 0 for boxes without an area."""
    inner = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    inside = inner.clip(0).prod(1)
    total = sum((box[:, 2:] - box[:, :2]).clip(0).prod(1) for box in (one, other)) - inside
    return np.divide(inside, total, out=np.zeros_like(inside), where=total > 0)
