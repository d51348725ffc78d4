"""The prediction of a model on one image, and its conversion to plain data.

Legend: H, W are the height and width of the image in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from detectron2.structures import Instances
from pycocotools import mask as coco_mask
from torch import Tensor

COUNTED = 1 << 22  # pixels that are counted at once


@dataclass(frozen=True)
class Classes:
    """Class names of objects (things) and pixels (stuff), in the order of the model's outputs."""

    things: Sequence[str] = ()
    stuff: Sequence[str] = ()


@dataclass(frozen=True)
class Prediction:
    """The outputs of a model for one image, on the CPU and in pixels of the original image.

    Attributes:
        instances: objects; boxes are (x0, y0, x1, y1). None if the model has no such output. The
            masks are ``pred_masks``, or ``pred_rles`` (:class:`RunLengths`) of a tiled picture.
        labels: (H, W) class numbers, or None.
        panoptic: (H, W) segment numbers and a description of each segment, or None.
    """

    instances: Instances | None = None
    labels: np.ndarray | None = None
    panoptic: tuple[Tensor, list[dict]] | None = None


class RunLengths:
    """Masks of one size as COCO's run lengths, a field of ``Instances``.

    Args:
        counts: compressed counts of each mask.
        size: (H, W).
    """

    def __init__(self, counts: Sequence[bytes], size: tuple[int, int]):
        self._counts, self._size = counts, size

    def __len__(self) -> int:
        return len(self._counts)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice | Tensor) -> RunLengths: ...
    def __getitem__(self, index: int | slice | Tensor) -> dict[str, Any] | RunLengths:
        """Return the RLE of a mask, or those of a slice, of indices or of a boolean tensor."""
        if isinstance(index, int):
            return {"size": list(self._size), "counts": self._counts[index]}
        chosen = np.arange(len(self))[index if isinstance(index, slice) else index.numpy()]
        return RunLengths([self._counts[one] for one in chosen], self._size)


def to_records(found: Prediction, classes: Classes) -> dict[str, Any]:
    """Convert a prediction to plain data: ``detections``, ``segments`` and ``classes``, if present.

    A detection has category, score, bbox (x, y, w, h) and, for models with masks, segmentation
    (RLE). A segment has id, isthing and category, and possibly score and area. ``classes`` maps
    each class to its share of the pixels.
    """
    records: dict[str, Any] = {}
    if found.instances is not None:
        records["detections"] = _detections(found.instances, classes)
    if found.panoptic is not None:
        records["segments"] = [_segment(one, classes) for one in found.panoptic[1]]
    elif found.labels is not None:
        counts = np.zeros(len(classes.stuff), np.int64)
        for rows in np.array_split(found.labels, -(-found.labels.size // COUNTED)):
            counts += np.bincount(rows.ravel(), minlength=len(counts))
        records["classes"] = {
            classes.stuff[number]: int(counts[number]) / found.labels.size
            for number in np.flatnonzero(counts).tolist()
        }
    return records


def _detections(instances: Instances, classes: Classes) -> list[dict]:
    records = []
    for index, (x0, y0, x1, y1) in enumerate(instances.pred_boxes.tensor.tolist()):
        record: dict[str, Any] = {
            "category": classes.things[int(instances.pred_classes[index])],
            "score": float(instances.scores[index]),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
        }
        if (rle := rle_of(instances, index)) is not None:
            record["segmentation"] = rle
        records.append(record)
    return records


def rle_of(instances: Instances, index: int) -> dict[str, Any] | None:
    """Return the mask of an object as COCO's RLE for JSON; None if there are no masks."""
    if instances.has("pred_rles"):
        rle = instances.pred_rles[index]
    elif instances.has("pred_masks"):
        rle = coco_mask.encode(np.asfortranarray(instances.pred_masks[index].numpy(), np.uint8))
    else:
        return None
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def _segment(segment: dict, classes: Classes) -> dict:
    names = classes.things if segment["isthing"] else classes.stuff
    kept = {key: segment[key] for key in ("id", "isthing", "score", "area") if key in segment}
    return {**kept, "category": names[segment["category_id"]]}
