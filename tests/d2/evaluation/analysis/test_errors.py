"""Kinds of errors, their costs in AP50, and the sheets of the worst."""

from __future__ import annotations

import numpy as np
import pytest
from analysis_cases import CAT, DOG, MEDIUM, PERFECT, SIZE, SMALL, TRUTH, an_object, found, rle

from swinv2_backbone.d2.evaluation.analysis.average_precision import average_precisions, evaluate
from swinv2_backbone.d2.evaluation.analysis.errors import (
    BACKGROUND,
    BOTH,
    CLASS,
    DUPLICATE,
    IGNORED,
    KINDS,
    LOCATION,
    MISSED,
    RIGHT,
    find_errors,
)
from swinv2_backbone.d2.evaluation.analysis.sheets import (
    CAPTION,
    COLUMNS,
    MOST,
    SIDE,
    draw_sheet,
    worst_errors,
)
from swinv2_backbone.d2.evaluation.analysis.tables import errors_text

NAMES = {DOG: "dog", CAT: "cat"}
# SMALL is [5, 5, 20, 20]: of the same size, 10 to the right, with an IoU of 1/3.
SHIFTED, ELSEWHERE = [15, 5, 20, 20], [60, 5, 20, 20]


def kinds(errors) -> list[str]:
    return [one.kind for one in errors.verdicts]


@pytest.mark.parametrize(
    "change, kind, is_a",
    [
        (found(1, DOG, SHIFTED, 0.8), LOCATION, DOG),
        (found(1, CAT, SMALL, 0.8), CLASS, DOG),
        (found(1, CAT, SHIFTED, 0.8), BOTH, DOG),
        (found(1, DOG, ELSEWHERE, 0.8), BACKGROUND, None),
    ],
)
def test_a_wrong_detection_has_the_kind_of_its_box_and_class(compared, change, kind, is_a):
    errors = find_errors(compared([change, *PERFECT[1:]]), 100)
    (wrong,) = [one for one in errors.verdicts if one.kind not in (RIGHT, MISSED)]
    assert wrong.kind == kind and wrong.image == 1
    assert (wrong.truth and wrong.truth["category_id"]) == is_a
    # An object that a wrong class or a wrong place explains is not missed as well.
    assert (MISSED in kinds(errors)) == (kind in (BOTH, BACKGROUND))


def test_a_second_detection_is_a_duplicate(compared):
    errors = find_errors(compared([*PERFECT, found(1, DOG, SMALL, 0.4)]), 100)
    assert kinds(errors) == [RIGHT] * 4 + [DUPLICATE]
    assert errors.ap50() == pytest.approx(100)


def test_a_missed_object_and_a_crowd(compared):
    crowd = an_object(1, DOG, ELSEWHERE, iscrowd=1)
    inside = found(1, DOG, ELSEWHERE, 0.95)
    errors = find_errors(compared([*PERFECT[:3], inside], [*TRUTH, crowd]), 100)
    assert sorted(kinds(errors)) == sorted([RIGHT] * 3 + [IGNORED, MISSED])
    assert dict(errors.objects) == {DOG: 2, CAT: 2}
    assert errors.costs()[MISSED] == pytest.approx(100 - errors.ap50())


def test_detections_of_low_confidence_and_beyond_the_limit_are_left_out(compared):
    both = [*PERFECT, found(1, DOG, ELSEWHERE, 0.3)]
    assert BACKGROUND in kinds(find_errors(compared(both), 100))
    assert BACKGROUND not in kinds(find_errors(compared(both), 100, 0.5))
    assert BACKGROUND not in kinds(find_errors(compared(both), 1))


@pytest.mark.parametrize("kind", [CLASS, LOCATION, BACKGROUND, MISSED])
def test_mending_the_only_kind_of_error_gives_an_ap50_of_100(compared, kind):
    first = {
        CLASS: [found(1, CAT, SMALL)],
        LOCATION: [found(1, DOG, SHIFTED)],
        BACKGROUND: [PERFECT[0], found(1, DOG, ELSEWHERE, 0.99)],
        MISSED: [],
    }[kind]
    errors = find_errors(compared([*first, *PERFECT[1:]]), 100)
    assert errors.ap50() < 90
    costs = errors.costs()
    assert costs[kind] == pytest.approx(100 - errors.ap50())
    assert all(costs[other] == pytest.approx(0) for other in KINDS if other != kind)


def test_two_wrong_detections_of_one_object_are_mended_once(compared):
    twice = [found(1, DOG, SHIFTED, 0.8), found(1, DOG, SHIFTED, 0.7), *PERFECT[1:]]
    assert find_errors(compared(twice), 100).ap50(LOCATION) == pytest.approx(100)


@pytest.mark.parametrize("seed", range(6))
def test_ap50_is_that_of_pycocotools(compared, seed):
    """Scores of the last seeds have few values, so that many are equal."""
    rng = np.random.default_rng(seed)

    def box() -> list[int]:
        x, y, width, height = rng.integers([0, 0, 20, 20], [50, 60, 45, 45]).tolist()
        return [x, y, width, height]

    truth = [
        an_object(int(image), int(category), box(), iscrowd=int(rng.random() < 0.1))
        for image, category in zip(rng.integers(1, 3, 16), rng.choice([DOG, CAT], 16))
    ]
    guesses = [found(one["image_id"], one["category_id"], one["bbox"]) for one in truth[::2]]
    guesses += [
        found(int(rng.integers(1, 3)), int(rng.choice([DOG, CAT])), box()) for _ in range(30)
    ]
    for guess in guesses:
        score = float(rng.random()) if seed < 3 else int(rng.integers(1, 4)) / 4
        guess["score"], guess["segmentation"] = score, rle(guess["bbox"])
    detections = compared(guesses, truth)
    table = average_precisions(evaluate(detections, "bbox"), detections)
    assert find_errors(detections, 100).ap50() == pytest.approx(table["all"]["AP50"], abs=1e-9)


def test_a_sheet_shows_the_most_confident_first_and_fills_its_rows(compared):
    false = [found(1, DOG, ELSEWHERE, score / 100) for score in range(60, 80)]
    shown = worst_errors(find_errors(compared([*PERFECT, *false]), 100), BACKGROUND)
    assert [round(100 * one.detection["score"]) for one in shown] == list(range(79, 79 - MOST, -1))
    picture = np.full((*SIZE, 3), 90, np.uint8)
    sheet = draw_sheet(shown[:5], NAMES, {1: "a.png"}, lambda file: {"a.png": picture}[file])
    assert (sheet[CAPTION : CAPTION + SIDE, :SIDE] < 255).any(2).all()  # nothing beside the image
    height, width = sheet.shape[0] // 2, sheet.shape[1] // COLUMNS
    assert width >= SIDE and (sheet[height:, width:] == 255).all()
    reds = (sheet[:height, :width].astype(int) @ [1, -1, 0] > 80).sum()
    assert 4 * 80 < reds < 4 * SIDE * 2  # the outline of the box, a few pixels wide


def test_the_largest_missed_objects_come_first(compared):
    shown = worst_errors(find_errors(compared([]), 100), MISSED)
    assert [one.truth["bbox"] for one in shown] == [MEDIUM, MEDIUM, SMALL, SMALL]


def test_the_table_has_the_costliest_kind_first_and_advice_for_what_occurs():
    table = {kind: {"AP50_lost": 0.0, "count": 0} for kind in KINDS}
    table[DUPLICATE] = {"AP50_lost": 12.34, "count": 7}
    lines = errors_text(table).splitlines()
    assert lines[2].split()[:3] == [DUPLICATE, "12.3", "7"] and "NMS_THRESH_TEST" in lines[2]
    assert all(not line.rstrip().endswith("swinv2 suggest)") for line in lines[3:])
