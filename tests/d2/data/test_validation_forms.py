"""The form of boxes and masks: sound sets of every kind pass, and each wrong form is recognized."""

from __future__ import annotations

import pytest
from coco_miswritten import BOX_AREAS, CUT_MASKS, RUNS_ALONG_ROWS, WRONG_BOXES, WRONG_MASKS
from coco_sets import SOUND, report_on

from swinv2_backbone.d2.data.validation import boxes, crowds, fits, forms, layouts
from swinv2_backbone.d2.data.validation.layouts import BOX_FORM
from swinv2_backbone.d2.data.validation.report import Report

FORM_FAULTS = (BOX_FORM, forms.MASK_FORM, forms.EITHER_FORM)
SEEDS = range(2)
AMODAL = "boxes of whole objects, masks of parts"
MASKED = [
    "COCO-like, 1 % RLE crowds",
    "huge objects",
    "one class",
    "one image",
    "polygons of whole pixels",
    "boxes rounded outward",
    "square images",
]
# What is told of a sound set, since it may be wrong: faults that are neither errors nor alarms.
TOLD = {
    AMODAL: {forms.MISFIT, boxes.CLIPPED},
    "boxes of whole objects": {boxes.CLIPPED},
    "boxes of whole objects at the right": {boxes.CLIPPED},
}


def words_of(report: Report) -> str:
    return "; ".join(
        text
        for fault in FORM_FAULTS
        if fault in report.errors
        for text in report.errors[fault].examples
    )


@pytest.mark.parametrize("kind", SOUND)
def test_sound_sets_raise_no_alarm(kind):
    """0 errors and 0 notes, except those of TOLD and the share of crowds."""
    for seed in SEEDS:
        content = SOUND[kind](seed)
        with_masks = all("segmentation" in one for one in content["annotations"])
        for masks in (True, False) if with_masks else (False,):
            report = report_on(content, masks=masks)
            assert not report.errors, f"seed {seed}: {report}"
            told = {*report.notes, *report.repaired} - {crowds.CROWDS}
            assert told <= TOLD.get(kind, set()), f"seed {seed}: {report}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOUND)
def test_no_alarm_in_a_hundred_sets(kind):
    for seed in range(100, 200):
        assert not report_on(SOUND[kind](seed), masks=False).errors


@pytest.mark.parametrize("kind", [*MASKED, "RLE only"])
@pytest.mark.parametrize("form", WRONG_BOXES)
def test_boxes_in_another_form_are_recognized_by_their_masks(kind, form):
    rewrite, words = WRONG_BOXES[form]
    for seed in SEEDS:
        report = report_on(rewrite(SOUND[kind](seed)))
        assert words in words_of(report), f"seed {seed}: {report}"


@pytest.mark.parametrize("kind", MASKED)
@pytest.mark.parametrize("form", WRONG_MASKS)
def test_boxes_or_polygons_in_another_form_are_recognized(kind, form):
    rewrite, words = WRONG_MASKS[form]
    for seed in SEEDS:
        report = report_on(rewrite(SOUND[kind](seed)))
        assert words in words_of(report), f"seed {seed}: {report}"


@pytest.mark.parametrize("form", WRONG_BOXES)
def test_boxes_without_masks_are_recognized_by_impossible_values(form):
    rewrite, words = WRONG_BOXES[form]
    for seed in SEEDS:
        report = report_on(rewrite(SOUND["boxes only"](seed)), masks=False)
        assert words in words_of(report), f"seed {seed}: {report}"


def test_a_twentieth_of_the_boxes_in_another_form_is_enough():
    rewrite, words = WRONG_BOXES["corners"]
    for seed in SEEDS:
        content = SOUND["one class"](seed)
        wrong, count = rewrite(content)["annotations"], len(content["annotations"]) // 15
        content["annotations"][:count] = wrong[:count]
        assert words in words_of(report_on(content))


def test_wrong_polygons_stop_no_training_of_boxes():
    rewrite, _ = WRONG_MASKS["polygons in fractions"]
    report = report_on(rewrite(SOUND["one class"](0)), masks=False)
    assert not report.errors and forms.MASK_FORM in report.notes


@pytest.mark.parametrize("seed", SEEDS)
def test_rle_along_rows_is_told_from_transposed_boxes(seed):
    content = RUNS_ALONG_ROWS(SOUND["RLE only"](seed))
    report = report_on(content)
    assert list(report.errors) == [forms.RLE_ROWS]
    assert report.errors[forms.RLE_ROWS].count > 0.9 * len(content["annotations"])
    assert not report_on(content, masks=False).errors


@pytest.mark.parametrize("seed", SEEDS)
def test_rle_along_rows_in_square_images_may_be_either(seed):
    square = [one | {"height": 512, "width": 512} for one in SOUND["RLE only"](seed)["images"]]
    made = SOUND["RLE only"](seed)
    keep = {entry["id"] for entry in made["images"] if entry["height"] == entry["width"]}
    made["images"] = [entry for entry in square if entry["id"] in keep]
    made["annotations"] = [one for one in made["annotations"] if one["image_id"] in keep]
    for masks in (True, False):
        report = report_on(RUNS_ALONG_ROWS(made), masks=masks)
        assert list(report.errors) == [forms.EITHER_FORM]
        assert "y before x, or else RLE" in words_of(report)


@pytest.mark.parametrize("seed", SEEDS)
def test_boxes_of_other_objects_are_an_error_and_single_ones_a_note(seed):
    content = SOUND["one class"](seed)
    annotations = content["annotations"]
    swapped = [one | {"bbox": other["bbox"]} for one, other in zip(annotations, annotations[7:])]
    report = report_on(content | {"annotations": swapped})
    assert forms.ELSEWHERE in report.errors and BOX_FORM not in report.errors
    away = [9, 9, 4, 4] if annotations[0]["bbox"][0] > 20 else [400, 400, 9, 9]
    content["annotations"] = [annotations[0] | {"bbox": away}, *annotations[1:]]
    report = report_on(content)
    assert not report.errors and report.notes[forms.MISFIT].count == 1


@pytest.mark.parametrize("iou,told", [(0.51, 0), (0.49, 1)])
def test_a_box_does_not_fit_its_mask_below_an_iou_of_one_half(iou, told):
    content = SOUND["one class"](0)
    widest = max(content["annotations"], key=lambda one: one["bbox"][2])
    x, y, w, h = widest["bbox"]
    widest["bbox"] = [x, y, w * iou, h]
    report = report_on(content)
    found = report.notes.get(forms.MISFIT)
    assert not report.errors and (found.count if found else 0) == told


@pytest.mark.parametrize("seed", SEEDS)
def test_soft_faults_are_notes(seed):
    content = SOUND["one class"](seed)
    assert fits.BOX_AREA in report_on(BOX_AREAS(content)).notes
    assert fits.CUT in report_on(CUT_MASKS(content)).notes
    annotations = content["annotations"]
    far = [one | {"area": one["area"] * 100} for one in annotations]
    assert fits.FAR_AREA in report_on(content | {"annotations": far}).notes
    loose = [one | {"bbox": _grown(one["bbox"])} for one in annotations]
    assert fits.LOOSE in report_on(content | {"annotations": loose}).notes
    drawn = [one | {"segmentation": [_rectangle(*one["bbox"])]} for one in annotations[::9]]
    report = report_on(content | {"annotations": [*annotations, *drawn]})
    assert fits.RECTANGLES in report.notes and not report.errors


def _grown(box: list[float]) -> list[float]:
    x, y, w, h = box
    return [x, y, w * 1.15, h * 1.15]


def _rectangle(x: float, y: float, w: float, h: float) -> list[float]:
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def test_boxes_in_one_corner_of_all_images_are_noted():
    content = SOUND["boxes only"](0)
    for one in content["annotations"]:
        one["bbox"] = [number / 2 for number in one["bbox"]]
    report = report_on(content, masks=False)
    assert not report.errors and "50% of the width" in str(report)


def test_the_message_shows_a_box_and_the_remedy():
    rewrite, _ = WRONG_BOXES["corners"]
    content = rewrite(SOUND["one image"](0))
    text = str(report_on(content))
    assert "boxes look like x1, y1, x2, y2 in pixels, such as annotation 1 in 1.jpg" in text
    assert str(content["annotations"][0]["bbox"]) in text and layouts.BOX_FORM.remedy in text
