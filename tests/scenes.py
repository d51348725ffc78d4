"""The scene of the exporters, and COCO-format content compared with its truth."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask
from scripts import ROOT

sys.path.append(str(ROOT / "tools"))

from exporters import forms, scene  # noqa: E402

__all__ = ["boxes_of", "forms", "image_names", "masks_of", "scene", "true_boxes", "true_masks"]


def image_names(content: dict) -> list[str]:
    """Return the file names without folders, sorted."""
    return sorted(Path(one["file_name"]).name for one in content["images"])


def masks_of(content: dict) -> list[tuple[str, str, bytes]]:
    """Return (image, class, pixels) of every object, sorted."""
    return sorted(
        (image, name, decoded(one["segmentation"], size).tobytes())
        for image, name, one, size in _objects(content)
    )


def true_masks() -> list[tuple[str, str, bytes]]:
    return sorted((one.image, one.name, one.mask.tobytes()) for one in scene.THINGS)


def boxes_of(content: dict) -> list[tuple[str, str, tuple[float, ...]]]:
    """Return (image, class, box) of every object, sorted."""
    return sorted(
        (image, name, tuple(round(value, 4) for value in one["bbox"]))
        for image, name, one, _ in _objects(content)
    )


def true_boxes() -> list[tuple[str, str, tuple[float, ...]]]:
    return sorted((one.image, one.name, one.box) for one in scene.THINGS)


def decoded(segmentation: dict | list, size: tuple[int, int]) -> np.ndarray:
    """Return a mask (H, W) bool of any COCO form, decoded by pycocotools."""
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
        return coco_mask.decode(segmentation).astype(bool)
    rles = coco_mask.frPyObjects(segmentation, *size)
    return coco_mask.decode(rles if isinstance(rles, dict) else coco_mask.merge(rles)).astype(bool)


def _objects(content: dict):
    images = {one["id"]: one for one in content["images"]}
    names = {one["id"]: one["name"] for one in content["categories"]}
    for one in content["annotations"]:
        image = images[one["image_id"]]
        size = (image["height"], image["width"])
        yield Path(image["file_name"]).name, names[one["category_id"]], one, size
