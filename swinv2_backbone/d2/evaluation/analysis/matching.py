"""Which detection is which object: greedy, whatever the class, so that confusion can be seen.

This is not COCO's matching, which keeps classes apart and therefore knows no confusion.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.evaluation.analysis.detections import Detections


@dataclass
class Matches:
    """The objects and detections of one image, as COCO's dicts.

    Attributes:
        pairs: (object, detection) of boxes that fit, of the same class or not.
        missed: objects without a detection.
        false: detections without an object.
        ignored: detections in crowd regions.
        crowds: crowd regions.
    """

    pairs: list[tuple[dict, dict]] = field(default_factory=list)
    missed: list[dict] = field(default_factory=list)
    false: list[dict] = field(default_factory=list)
    ignored: list[dict] = field(default_factory=list)
    crowds: list[dict] = field(default_factory=list)

    @property
    def right(self) -> list[tuple[dict, dict]]:
        """The pairs of one class."""
        return [(a, b) for a, b in self.pairs if a["category_id"] == b["category_id"]]

    @property
    def confused(self) -> list[tuple[dict, dict]]:
        """The pairs of different classes."""
        return [(a, b) for a, b in self.pairs if a["category_id"] != b["category_id"]]

    @property
    def errors(self) -> int:
        return len(self.missed) + len(self.false) + len(self.confused)


def match(truth: list[dict], found: list[dict], iou: float) -> Matches:
    """Match the detections of an image, the highest score first, each object once.

    A detection takes the free object that it overlaps most, with an IoU of boxes of at least
    ``iou``; among equal ones that of its own class.  One that fits no free object but lies in a
    crowd region, by at least ``iou`` of its area, is ignored.
    """
    crowds = [one for one in truth if one.get("iscrowd")]
    objects = [one for one in truth if not one.get("iscrowd")]
    found = sorted(found, key=lambda one: -one["score"])
    overlap = _overlaps(found, objects, crowd=False)
    in_crowd = _overlaps(found, crowds, crowd=True)
    matches, free = Matches(crowds=crowds), set(range(len(objects)))
    for row, one in enumerate(found):
        fitting = [place for place in free if overlap[row, place] >= iou]
        if fitting:
            best = max(
                fitting,
                key=lambda p: (
                    overlap[row, p],
                    objects[p]["category_id"] == one["category_id"],
                    -p,
                ),
            )
            free.remove(best)
            matches.pairs.append((objects[best], one))
        elif (in_crowd[row] >= iou).any():
            matches.ignored.append(one)
        else:
            matches.false.append(one)
    matches.missed = [objects[place] for place in sorted(free)]
    return matches


def match_images(detections: Detections, iou: float, confidence: float) -> dict[int, Matches]:
    """Image id -> its matches, of the detections with a score of at least ``confidence``."""
    return {
        image: match(detections.truth_of(image), detections.found_in(image, confidence), iou)
        for image in detections.truth.getImgIds()
    }


def worst_images(matches: dict[int, Matches], names: dict[int, str], count: int) -> list[int]:
    """The images with most errors, those with none left out; ties by file name."""
    wrong = [image for image, one in matches.items() if one.errors]
    return sorted(wrong, key=lambda image: (-matches[image].errors, names[image]))[:count]


def _overlaps(found: list[dict], truth: list[dict], crowd: bool) -> np.ndarray:
    """(detections, objects) IoU of boxes; in a crowd, the share of the detection within it."""
    if not found or not truth:
        return np.zeros((len(found), len(truth)))
    boxes = [np.array([one["bbox"] for one in side], float) for side in (found, truth)]
    return coco_mask.iou(*boxes, [int(crowd)] * len(truth))
