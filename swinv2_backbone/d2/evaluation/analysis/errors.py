"""The kinds of errors of a detector, and what each costs in AP50.

The kinds are those of TIDE (Bolya et al., `arXiv 2008.08115 <https://arxiv.org/abs/2008.08115>`_).
The cost of a kind is what AP50 gains if exactly its errors are mended. The costs do not add up to
100 - AP50, because mending one kind can leave errors of another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from swinv2_backbone.d2.evaluation.analysis.detections import Detections
from swinv2_backbone.d2.evaluation.analysis.matching import overlaps

RIGHT_IOU, BACKGROUND_IOU = 0.5, 0.1  # TIDE's lowest of a right box, and highest of background
RIGHT, IGNORED, MISSED = "right", "ignored", "missed"
CLASS, LOCATION, BOTH = "class", "location", "class and location"
DUPLICATE, BACKGROUND = "duplicate", "background"
# Kind -> what to look at, or to try.
KINDS = {
    CLASS: "more images of the confused classes; check their labels",
    LOCATION: "larger images, or a longer training; check how tight the labels are",
    BOTH: "as for class and location",
    DUPLICATE: "a lower NMS_THRESH_TEST (of MODEL.ROI_HEADS or MODEL.RETINANET)",
    BACKGROUND: "label the real objects on the sheet; for the rest, train on images without any",
    MISSED: "small objects: larger images, other anchors (swinv2 suggest); others: longer training",
}
RECALLS = np.linspace(0, 1, 101)  # COCO's


class Verdict(NamedTuple):
    """The verdict on a detection, or on a missed object.

    Attributes:
        kind: RIGHT, IGNORED (in a crowd region), or one of :data:`KINDS`.
        image: image id.
        detection: None for a missed object.
        truth: the object that it should have been; None for background.
    """

    kind: str
    image: int
    detection: dict | None
    truth: dict | None


@dataclass(frozen=True)
class Errors:
    """The verdicts of a dataset.

    Attributes:
        verdicts: of all detections, by falling score, then of the missed objects.
        objects: category id -> number of its objects.
    """

    verdicts: list[Verdict]
    objects: Mapping[int, int]

    def of_kind(self, kind: str) -> list[Verdict]:
        return [one for one in self.verdicts if one.kind == kind]

    def ap50(self, mended: str = "") -> float:
        """Return AP50 in percent, with the errors of one kind mended if it is given."""
        found: dict[int, list[tuple[float, bool]]] = defaultdict(list)
        objects = dict(self.objects)
        for category, score, right in self._counted(mended):
            found[category].append((score, right))
        if mended == MISSED:
            for one in self.of_kind(MISSED):
                assert one.truth is not None
                objects[one.truth["category_id"]] -= 1
        scores = [_average_precision(found[key], count) for key, count in objects.items() if count]
        return 100 * float(np.mean(scores)) if scores else 0.0

    def costs(self) -> dict[str, float]:
        """Return what AP50 gains if the errors of a kind are mended, by kind."""
        now = self.ap50()
        return {kind: self.ap50(kind) - now for kind in KINDS}

    def _counted(self, mended: str) -> Iterator[tuple[int, float, bool]]:
        """Yield class, score and correctness of the detections that count."""
        taken = {id(one.truth) for one in self.verdicts if one.kind == RIGHT}
        for one in self.verdicts:
            if one.detection is None or one.kind == IGNORED:
                continue
            category, score = one.detection["category_id"], one.detection["score"]
            if one.kind != mended:
                yield category, score, one.kind == RIGHT
            elif mended in (CLASS, LOCATION) and one.truth and id(one.truth) not in taken:
                taken.add(id(one.truth))
                yield one.truth["category_id"], score, True


def find_errors(detections: Detections, most: int, confidence: float = 0.0) -> Errors:
    """Judge every detection by COCO's matching at an IoU of 0.5, and name the kind of an error.

    Args:
        most: detections per image and class that count.
        confidence: detections with a lower score are left out.
    """
    judged: list[Verdict] = []
    objects: dict[int, int] = defaultdict(int)
    for image in detections.truth.getImgIds():
        truth = detections.truth_of(image)
        found = _counting(detections.found_in(image, confidence), most)
        for known in truth:
            objects[known["category_id"]] += not known.get("iscrowd")
        judged += _judge(image, truth, found)
    # Missed objects are the last.
    judged.sort(key=lambda one: -one.detection["score"] if one.detection else 1.0)
    return Errors(judged, objects)


def _counting(found: list[dict], most: int) -> list[dict]:
    """Return the detections of an image that count, by falling score."""
    counts: dict[int, int] = defaultdict(int)
    kept = []
    for one in sorted(found, key=lambda one: -one["score"]):
        counts[one["category_id"]] += 1
        if counts[one["category_id"]] <= most:
            kept.append(one)
    return kept


def _judge(image: int, truth: list[dict], found: list[dict]) -> Iterator[Verdict]:
    objects = [one for one in truth if not one.get("iscrowd")]
    crowds = [one for one in truth if one.get("iscrowd")]
    iou, in_crowd = overlaps(found, objects, crowd=False), overlaps(found, crowds, crowd=True)
    matched: set[int] = set()
    explained: set[int] = set()
    verdicts: dict[int, Verdict] = {}  # by the place of the detection
    for row, one in enumerate(found):
        free = [place for place in _of_class(one, objects) if place not in matched]
        best = max(free, key=lambda place: iou[row, place], default=None)
        if best is not None and iou[row, best] >= RIGHT_IOU:
            matched.add(best)
            verdicts[row] = Verdict(RIGHT, image, one, objects[best])
        elif any(in_crowd[row, place] >= RIGHT_IOU for place in _of_class(one, crowds)):
            verdicts[row] = Verdict(IGNORED, image, one, None)
    for row, one in enumerate(found):
        if row not in verdicts:
            kind, place = _kind(one, objects, iou[row])
            if kind in (CLASS, LOCATION) and place is not None:
                explained.add(place)
            verdicts[row] = Verdict(kind, image, one, None if place is None else objects[place])
    yield from (verdicts[row] for row in range(len(found)))  # as COCO orders equal scores
    for place in set(range(len(objects))) - matched - explained:
        yield Verdict(MISSED, image, None, objects[place])


def _kind(one: dict, objects: list[dict], iou: np.ndarray) -> tuple[str, int | None]:
    """Return the kind of a wrong detection, and the object that it should have been."""
    same = _of_class(one, objects)
    other = [place for place in range(len(objects)) if place not in same]
    near_same, near_other = (max(some, key=iou.__getitem__, default=None) for some in (same, other))

    def near(place: int | None) -> float:
        return 0.0 if place is None else iou[place]

    # TIDE's order; whatever is left is background.
    tests: Sequence[tuple[str, int | None, bool]] = (
        (LOCATION, near_same, BACKGROUND_IOU <= near(near_same) < RIGHT_IOU),
        (CLASS, near_other, near(near_other) >= RIGHT_IOU),
        (DUPLICATE, near_same, near(near_same) >= RIGHT_IOU),
        (BOTH, near_other, near(near_other) >= BACKGROUND_IOU),
    )
    return next(((kind, place) for kind, place, holds in tests if holds), (BACKGROUND, None))


def _of_class(one: dict, objects: list[dict]) -> list[int]:
    return [
        place for place, known in enumerate(objects) if known["category_id"] == one["category_id"]
    ]


def _average_precision(found: list[tuple[float, bool]], objects: int) -> float:
    """Return the mean precision at COCO's 101 recalls."""
    found = sorted(found, key=lambda one: -one[0])
    right = np.cumsum([one[1] for one in found])
    if not len(right):
        return 0.0
    precision = right / np.arange(1, len(right) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or a higher one
    places = np.searchsorted(right / objects, RECALLS, side="left")
    return float(np.mean(np.append(highest, 0.0)[places]))
