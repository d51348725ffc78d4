"""What is found plainly sound among many annotations needs neither repair nor error by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swinv2_backbone.d2.data.storage.columns import columns_of
from swinv2_backbone.d2.data.validation.annotations import AnnotationChecker
from swinv2_backbone.d2.data.validation.report import Report
from swinv2_backbone.d2.data.validation.sound import plainly_sound

SQUARE = [1, 2, 5, 2, 5, 8, 1, 8]
INSIDE = [2, 3, 4, 3, 4, 6, 2, 6]
BESIDE = [7, 2, 9, 2, 9, 8]
SOUND = {
    "image_id": 4,
    "category_id": 5,
    "bbox": [1, 2, 4, 6],
    "iscrowd": 0,
    "area": 24,
    "segmentation": [SQUARE],
}
IMAGE = {"id": 4, "file_name": "a.jpg", "height": 10, "width": 12}
MODES = [
    {"masks": masks, "mask_format": form, "for_evaluation": evaluation, "crowds": crowds}
    for masks in (True, False)
    for form in ("polygon", "bitmask")
    for evaluation in (True, False)
    for crowds in ("check", "objects")
]


def found_sound(annotations, **mode):
    """Return which annotations are plainly sound, and the checker."""
    checker = AnnotationChecker(Report("a.json"), {4: IMAGE}, {5: "fig"}, **mode)
    columns = columns_of(annotations, {4: 0}, {5: 0})
    if columns is None:
        return np.zeros(len(annotations), bool), checker
    return plainly_sound(annotations, columns, np.array([[10, 12]]), checker), checker


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_sound_annotation_is_found(mode):
    several = SOUND | {"segmentation": [SQUARE, BESIDE]}
    assert found_sound([SOUND, several], **mode)[0].all()


@pytest.mark.parametrize(
    "changes",
    [
        {"image_id": 7},
        {"category_id": 7},
        {"bbox": [-1, 2, 4, 6]},
        {"bbox": [1, 2, 11.5, 6]},
        {"bbox": [1, 2, 4, 8.5]},
        {"bbox": [1, 2, 0, 6]},
        {"bbox": [math.nan, 2, 4, 6]},
        {"iscrowd": None},
        {"iscrowd": 2},
        {"iscrowd": -1},
        {"ignore": 1},
        {"keypoints": [1, 2, 2]},
        {"segmentation": []},
        {"segmentation": [SQUARE[:4]]},
        {"segmentation": [SQUARE, SQUARE[:7]]},
        {"segmentation": [SQUARE[:-1] + [99]]},
        {"segmentation": [SQUARE[:-1] + [math.inf]]},
        {"segmentation": [SQUARE, INSIDE]},
        {"segmentation": {"size": [10, 12], "counts": [120]}},
    ],
    ids=str,
)
def test_what_may_need_a_repair_is_not_among_it(changes):
    mode = {"masks": True, "mask_format": "bitmask", "for_evaluation": False}
    assert found_sound([SOUND, SOUND | changes, SOUND], **mode)[0].tolist() == [True, False, True]


def test_a_crowd_that_is_read_as_an_object_is_not_among_it():
    mode = {"masks": True, "mask_format": "bitmask", "for_evaluation": False}
    crowd = SOUND | {"iscrowd": 1}
    assert found_sound([crowd], crowds="check", **mode)[0].all()
    assert not found_sound([crowd], crowds="objects", **mode)[0].any()


@pytest.mark.parametrize("area", [None, 0, math.nan, math.inf, "24"])
def test_an_area_counts_for_evaluation_alone(area):
    mode = {"masks": True, "mask_format": "bitmask"}
    for evaluation in (True, False):
        sound, _ = found_sound([SOUND | {"area": area}], for_evaluation=evaluation, **mode)
        assert sound[0] == (not evaluation)


NUMBER = st.sampled_from([0, 1, 4, 7, 12, math.nan, math.inf, -0.01]) | st.floats(-2, 14)
POLYGON = st.lists(NUMBER, min_size=5, max_size=8) | st.sampled_from([SQUARE, INSIDE, BESIDE])
CHANGES = {
    "image_id": st.sampled_from([4, 4.0, "4", 7, True, None]),
    "category_id": st.sampled_from([5, 5.0, "fig", 7, None]),
    "bbox": st.tuples(NUMBER, NUMBER, NUMBER, NUMBER).map(list) | st.none(),
    "iscrowd": st.sampled_from([0, 1, True, None, 2, "0"]),
    "area": st.none() | NUMBER,
    "ignore": st.sampled_from([0, 1, None]),
    "segmentation": st.lists(POLYGON, max_size=3) | st.sampled_from([None, {}, SQUARE, "x"]),
}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.fixed_dictionaries({}, optional=CHANGES), max_size=4), st.sampled_from(MODES))
@example([{"bbox": [0, 1, 1.0, 3e-280]}], MODES[0])  # a height that rounding loses
def test_the_checker_has_nothing_to_say_of_it(changes, mode):
    annotations = [SOUND | change for change in changes]
    sound, checker = found_sound(annotations, **mode)
    for number in np.flatnonzero(sound).tolist():
        assert checker.check(number, annotations[number]) is annotations[number]
    report = checker.report
    assert not (report.errors or report.repaired or report.notes)
