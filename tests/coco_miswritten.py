"""The sets of ``coco_sets`` miswritten as some exporters do: each function rewrites a copy."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
from pycocotools import mask as coco_mask


def _each(change: Callable[[dict, float, float], dict]) -> Callable[[dict], dict]:
    """Apply a change to each annotation, given the width and the height of its image."""

    def wrong(content: dict) -> dict:
        content = copy.deepcopy(content)
        sizes = {entry["id"]: (entry["width"], entry["height"]) for entry in content["images"]}
        content["annotations"] = [
            one | change(one, *sizes[one["image_id"]]) for one in content["annotations"]
        ]
        return content

    return wrong


def _box(change: Callable) -> Callable[[dict], dict]:
    return _each(lambda one, width, height: {"bbox": change(*one["bbox"], width, height)})


def _points(one: dict, x: float, y: float, swap: bool = False) -> dict:
    """Scale the polygons of an annotation; RLE stays."""
    if not isinstance(one.get("segmentation"), list):
        return {}
    pairs = [np.reshape(polygon, (-1, 2)) * [x, y] for polygon in one["segmentation"]]
    return {"segmentation": [(p[:, ::-1] if swap else p).ravel().tolist() for p in pairs]}


def _along_rows(one: dict, width: float, height: float) -> dict:
    mask = one.get("segmentation")
    if not isinstance(mask, dict):
        return {}
    bits = coco_mask.decode(mask).ravel()
    edges = np.flatnonzero(np.diff(bits)) + 1
    runs = np.diff([0, *edges, len(bits)]).tolist()
    return {"segmentation": {"size": mask["size"], "counts": [0, *runs] if bits[0] else runs}}


def _both(x: Callable, y: Callable, swap: bool = False) -> Callable[[dict], dict]:
    """Scale boxes and polygons alike."""

    def change(one: dict, width: float, height: float) -> dict:
        a, b = x(width), y(height)
        left, top, w, h = (n * scale for n, scale in zip(one["bbox"], (a, b, a, b)))
        box = [top, left, h, w] if swap else [left, top, w, h]
        return {"bbox": box} | _points(one, a, b, swap)

    return _each(change)


# Of boxes alone. Name -> the rewriting, and words that the report must have.
WRONG_BOXES: dict[str, tuple[Callable[[dict], dict], str]] = {
    "corners": (_box(lambda x, y, w, h, *_: [x, y, x + w, y + h]), "x1, y1, x2, y2 in pixels"),
    "centers": (
        _box(lambda x, y, w, h, *_: [x + w / 2, y + h / 2, w, h]),
        "center x, center y, width, height in pixels",
    ),
    "y first": (_box(lambda x, y, w, h, *_: [y, x, h, w]), "y"),
    "y first, corners": (_box(lambda x, y, w, h, *_: [y, x, y + h, x + w]), "y1, x1, y2, x2"),
    "fractions": (
        _box(lambda x, y, w, h, W, H: [x / W, y / H, w / W, h / H]),
        "x, y, width, height in fractions",
    ),
    "fractions of centers": (
        _box(lambda x, y, w, h, W, H: [(x + w / 2) / W, (y + h / 2) / H, w / W, h / H]),
        "center x, center y, width, height in fractions",
    ),
    "fractions of corners": (
        _box(lambda x, y, w, h, W, H: [x / W, y / H, (x + w) / W, (y + h) / H]),
        "x1, y1, x2, y2 in fractions",
    ),
    "twice the size": (_box(lambda x, y, w, h, *_: [2 * x, 2 * y, 2 * w, 2 * h]), "of images"),
}
# Of sets with masks.
WRONG_MASKS: dict[str, tuple[Callable[[dict], dict], str]] = {
    "percent": (
        _box(lambda x, y, w, h, W, H: [100 * x / W, 100 * y / H, 100 * w / W, 100 * h / H]),
        "x, y, width, height in percent",
    ),
    "thousandths, y first": (
        _box(
            lambda x, y, w, h, W, H: [
                1e3 * y / H,
                1e3 * x / W,
                1e3 * (y + h) / H,
                1e3 * (x + w) / W,
            ]
        ),
        "y1, x1, y2, x2 in thousandths",
    ),
    "half the size": (
        _box(lambda x, y, w, h, *_: [x / 2, y / 2, w / 2, h / 2]),
        "of images 0.5 times as wide",
    ),
    "in images of 320 x 320": (
        _box(lambda x, y, w, h, W, H: [320 * x / W, 320 * y / H, 320 * w / W, 320 * h / H]),
        "of images",
    ),
    "polygons in fractions": (
        _each(lambda one, W, H: _points(one, 1 / W, 1 / H)),
        "polygons look like fractions",
    ),
    "polygons with y first": (_each(lambda one, W, H: _points(one, 1, 1, True)), "y before x"),
    "boxes and polygons in fractions": (_both(lambda W: 1 / W, lambda H: 1 / H), "in fractions"),
}
RUNS_ALONG_ROWS = _each(_along_rows)
BOX_AREAS = _each(lambda one, W, H: {"area": one["bbox"][2] * one["bbox"][3]})
CUT_MASKS = _box(lambda x, y, w, h, *_: [x, y, w + 1, h + 1])
