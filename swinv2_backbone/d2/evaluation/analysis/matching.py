"""Greedy matching of detections to objects of any class, which shows confusion between classes.

COCO's own matching keeps classes apart and cannot show confusion.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.evaluation.analysis.detections import Detections


@dataclass
class Matches:
    """The matched objects and detections of one image, as COCO's dicts.

    Attributes:
        pairs: (object, detection) with matching boxes, of the same class or not.
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
        """Return the pairs of the same class."""
        return [(a, b) for a, b in self.pairs if a["category_id"] == b["category_id"]]

    @property
    def confused(self) -> list[tuple[dict, dict]]:
        """Return the pairs of different classes."""
        return [(a, b) for a, b in self.pairs if a["category_id"] != b["category_id"]]

    @property
    def errors(self) -> int:
        return len(self.missed) + len(self.false) + len(self.confused)


def match(truth: list[dict], found: list[dict], iou: float) -> Matches:
    """Match the detections of an image in order of their scores; each object is matched once.

    A detection is matched to the free object with the highest IoU of boxes, at least ``iou``; ties
    go to an object of its own class. A detection without such an object is ignored if at least
    ``iou`` of its area is in a crowd region.
    """
    crowds = [one for one in truth if one.get("iscrowd")]
    objects = [one for one in truth if not one.get("iscrowd")]
    found = sorted(found, key=lambda one: -one["score"])
    overlap = overlaps(found, objects, crowd=False)
    in_crowd = overlaps(found, crowds, crowd=True)
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
    """Match the detections with a score of at least ``confidence``; return matches by image id."""
    return {
        image: match(detections.truth_of(image), detections.found_in(image, confidence), iou)
        for image in detections.truth.getImgIds()
    }


def worst_images(matches: dict[int, Matches], names: dict[int, str], count: int) -> list[int]:
    """Return the images with the most errors, if any; ties are sorted by file name."""
    wrong = [image for image, one in matches.items() if one.errors]
    return sorted(wrong, key=lambda image: (-matches[image].errors, names[image]))[:count]


def overlaps(found: list[dict], truth: list[dict], crowd: bool) -> np.ndarray:
    """Return the IoU of boxes, (detections, objects); for crowds, the share inside the crowd."""
    if not found or not truth:
        return np.zeros((len(found), len(truth)))
    boxes = [np.array([one["bbox"] for one in side], float) for side in (found, truth)]
    return coco_mask.iou(*boxes, [int(crowd)] * len(truth))
