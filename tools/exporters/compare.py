"""What a reader makes of an exported scene, compared with the scene itself.

Legend: IoU is taken of masks, or of boxes where an object has no mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from exporters.scene import HEIGHT, IMAGES, THINGS, WIDTH, Thing

Entry = dict[str, Any]


@dataclass
class Outcome:
    """Objects of the scene that were read.

    Attributes:
        of: number of objects of the scene that were given.
        objects: number of annotations.
        crowds: how many of them are crowds.
        images: number of images, of three.
        boxes: objects of the scene whose box is exact.
        masks: objects of the scene whose mask is exact; None if nothing has a mask.
        lost: pixels of masks that differ.
        split: objects of the scene that became several.
        filled: the hole is filled.
        farthest: largest difference of a box's side, in pixels.
    """

    of: int = 0
    objects: int = 0
    crowds: int = 0
    images: int = 0
    boxes: int = 0
    masks: int | None = None
    lost: int = 0
    split: int = 0
    filled: bool = False
    farthest: float = 0.0


def compare(content: dict[str, list[Entry]], simple: bool = False) -> Outcome:
    """Match the annotations of COCO-format content with the scene.

    Args:
        simple: only objects in one part and without holes, for forms that hold no others.
    """
    things = [one for one in THINGS if not simple or (len(one.parts) == 1 and not one.holes)]
    images = {one["id"]: Path(one["file_name"]).name for one in content["images"]}
    names = {one["id"]: one["name"] for one in content["categories"]}
    entries = content["annotations"]
    outcome = Outcome(len(things), len(entries), images=len(set(images.values())))
    outcome.crowds = sum(bool(one.get("iscrowd")) for one in entries)
    if any(one.get("segmentation") for one in entries):
        outcome.masks = 0
    for thing in things:
        near = [
            one
            for one in entries
            if _same_image(images[one["image_id"]], thing.image)
            and names[one["category_id"]] == thing.name
            and _overlaps(one, thing)
        ]
        outcome.split += len(near) > 1
        if near:
            _compare_one(outcome, max(near, key=lambda one: _shared(one, thing)), thing)
    return outcome


def _compare_one(outcome: Outcome, entry: Entry, thing: Thing) -> None:
    differences = [abs(a - b) for a, b in zip(corners(entry["bbox"]), corners(thing.box))]
    outcome.farthest = max(outcome.farthest, round(max(differences), 2))
    outcome.boxes += max(differences) < 0.05
    if outcome.masks is not None:
        mask = decoded(entry.get("segmentation") or [])
        outcome.masks += bool((mask == thing.mask).all())
        outcome.lost += int((mask != thing.mask).sum())
        outcome.filled |= bool(thing.holes and mask[31, 17])  # in the middle of the hole


def corners(box: Any) -> tuple[float, ...]:
    x, y, width, height = box
    return x, y, x + width, y + height


def decoded(segmentation: Any) -> np.ndarray:
    """Return a mask (H, W) bool of any COCO form."""
    if not segmentation:
        return np.zeros((HEIGHT, WIDTH), bool)
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
        return coco_mask.decode(segmentation).astype(bool)
    rles = coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH)
    return coco_mask.decode(rles if isinstance(rles, dict) else coco_mask.merge(rles)).astype(bool)


def _same_image(name: str, image: str) -> bool:
    """Return True for the image of the scene, also if a tool has renamed it."""
    stem = Path(image).stem
    return (
        name == image
        or name.split(".")[0] in (stem, f"{stem}_png")
        or f"-{image}" in name
        or (name.startswith(f"{stem}_") and image in IMAGES)
    )


def _overlaps(entry: Entry, thing: Thing) -> bool:
    return _shared(entry, thing) > 0


def _shared(entry: Entry, thing: Thing) -> float:
    """Return the area that two boxes share."""
    left, top, right, bottom = corners(entry["bbox"])
    x0, y0, x1, y1 = corners(thing.box)
    return max(min(right, x1) - max(left, x0), 0) * max(min(bottom, y1) - max(top, y0), 0)
