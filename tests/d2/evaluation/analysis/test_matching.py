"""Matching of detections to objects, and the confusion of classes that it shows."""

from __future__ import annotations

import numpy as np
import pytest
from analysis_cases import (
    CAT,
    DOG,
    MEDIUM,
    PERFECT,
    SMALL,
    TRUTH,
    an_object,
    found,
)

from swinv2_backbone.d2.evaluation.analysis.confusion import object_confusion
from swinv2_backbone.d2.evaluation.analysis.detections import Detections
from swinv2_backbone.d2.evaluation.analysis.matching import match, match_images, worst_images


def confusion(detections: Detections, iou: float = 0.5, confidence: float = 0.5) -> list:
    matches = match_images(detections, iou, confidence)
    return object_confusion(matches.values(), detections.classes, detections.index).counts.tolist()


# Rows and columns of the tables are dog, cat, and background or missed


def test_perfect_detections_have_a_diagonal_confusion_table(compared):
    assert confusion(compared(PERFECT)) == [[2, 0, 0], [0, 2, 0], [0, 0, 0]]


def test_a_swapped_class_is_off_the_diagonal(compared):
    swapped = [*PERFECT[:3], found(2, DOG, MEDIUM)]
    assert confusion(compared(swapped)) == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]


def test_a_missed_object_is_in_the_last_column(compared):
    assert confusion(compared(PERFECT[:3])) == [[2, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_a_duplicate_is_in_the_last_row(compared):
    twice = [*PERFECT, found(1, CAT, MEDIUM, 0.6)]
    assert confusion(compared(twice)) == [[2, 0, 0], [0, 2, 0], [0, 1, 0]]


def test_without_detections_everything_is_missed(compared):
    assert confusion(compared([])) == [[0, 0, 2], [0, 0, 2], [0, 0, 0]]


def test_detections_below_the_confidence_do_not_exist(compared):
    scored = [{**one, "score": score} for one, score in zip(PERFECT, (0.5, 0.49, 0.9, 0.1))]
    assert confusion(compared(scored), confidence=0.5) == [[2, 0, 0], [0, 0, 2], [0, 0, 0]]


def test_boxes_below_the_iou_do_not_match(compared):
    half = [found(1, DOG, [5, 5, 20, 10])]
    truth = [an_object(1, DOG, SMALL)]
    assert match(truth, half, 0.5).errors == 0
    assert match(truth, half, 0.51).errors == 2  # one missed, one false


def test_detections_in_crowds_are_ignored_whatever_their_class(compared):
    crowd = an_object(1, CAT, [30, 30, 60, 60], iscrowd=1)
    inside = [found(1, CAT, [35, 35, 10, 10]), found(1, DOG, [60, 60, 20, 20])]
    half_outside = [found(1, DOG, [85, 40, 10, 10], 0.8), found(1, DOG, [86, 70, 10, 10], 0.8)]
    detections = compared([*PERFECT[:1], *inside, *half_outside], [TRUTH[0], crowd])
    # Exactly half of the third lies in the crowd, less of the fourth; the crowd is not missed.
    assert confusion(detections) == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_an_object_in_a_crowd_is_matched_before_the_crowd_ignores():
    crowd = an_object(1, CAT, [0, 0, 60, 60], iscrowd=1)
    matches = match([crowd, an_object(1, DOG, SMALL)], [found(1, DOG, SMALL)], 0.5)
    assert len(matches.pairs) == 1 and not matches.ignored and matches.crowds == [crowd]


def test_the_highest_score_chooses_first():
    better, higher = found(1, DOG, SMALL, 0.6), found(1, DOG, [5, 5, 20, 16], 0.7)
    matches = match([an_object(1, DOG, SMALL)], [better, higher], 0.5)
    assert matches.pairs[0][1] is higher and matches.false == [better]


def test_a_taken_object_leaves_the_next_best():
    near, far = an_object(1, DOG, [0, 0, 20, 20]), an_object(1, DOG, [0, 0, 20, 28])
    matches = match([near, far], [found(1, DOG, [0, 0, 20, 20], s) for s in (0.9, 0.8)], 0.5)
    assert [truth for truth, _ in matches.pairs] == [near, far]


@pytest.mark.parametrize("own", [0, 1])
def test_of_equal_boxes_that_of_the_own_class_is_taken(own):
    truth = [an_object(1, DOG, SMALL), an_object(1, CAT, SMALL)]
    matches = match(truth, [found(1, (DOG, CAT)[own], SMALL)], 0.5)
    assert matches.pairs[0][0] is truth[own]


def test_of_equal_objects_the_first_is_taken():
    truth = [an_object(1, DOG, SMALL), an_object(1, DOG, SMALL)]
    matches = match(truth, [found(1, DOG, SMALL)], 0.5)
    assert matches.pairs[0][0] is truth[0] and matches.missed[0] is truth[1]


def box_iou(a: list[float], b: list[float]) -> float:
    """Intersection over union from its definition."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(across, 0) * max(down, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


@pytest.mark.parametrize("seed", range(20))
def test_random_scenes_match_as_a_plain_loop_matches_them(seed):
    random = np.random.default_rng(seed)

    def boxes(count: int) -> list[list[float]]:
        return np.hstack([random.uniform(0, 30, (count, 2)), random.uniform(10, 40, (count, 2))])

    truth = [{"category_id": DOG, "bbox": box.tolist()} for box in boxes(8)]
    scores = random.permutation(12) / 12
    detections = [found(1, CAT, box.tolist(), score) for box, score in zip(boxes(12), scores)]
    taken, expected = set(), []
    for one in sorted(detections, key=lambda d: d["score"], reverse=True):
        ious = {i: box_iou(one["bbox"], truth[i]["bbox"]) for i in range(8) if i not in taken}
        best = max(ious, key=ious.get, default=None)
        if best is not None and ious[best] >= 0.4:
            taken.add(best)
            expected.append((best, one["score"]))
    matches = match(truth, detections, 0.4)
    assert [(truth.index(a), b["score"]) for a, b in matches.pairs] == expected
    assert len(matches.missed) == 8 - len(expected) and len(matches.false) == 12 - len(expected)
    assert 0 < len(expected) < 8


def test_the_worst_images_have_most_errors_and_ties_go_by_name():
    one_error = match([an_object(1, DOG, SMALL)], [], 0.5)
    two_errors = match([an_object(1, DOG, SMALL)], [found(1, DOG, MEDIUM)], 0.5)
    wrong_class = match([an_object(1, DOG, SMALL)], [found(1, CAT, SMALL)], 0.5)
    none = match([an_object(1, DOG, SMALL)], [found(1, DOG, SMALL)], 0.5)
    matches = {1: one_error, 2: none, 3: two_errors, 4: wrong_class}
    names = {1: "b.png", 2: "x.png", 3: "c.png", 4: "a.png"}
    assert worst_images(matches, names, 10) == [3, 4, 1]
    assert worst_images(matches, names, 2) == [3, 4]
