"""Heat maps, curves and drawings of single images."""

from __future__ import annotations

import cv2
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
    assert_is_a_picture,
    caption_has,
    found,
    many_classes,
    pixels,
    segments,
)
from detectron2.data import DatasetCatalog

from swinv2_backbone.d2.evaluation.analysis.average_precision import evaluate
from swinv2_backbone.d2.evaluation.analysis.heat_map import draw_confusion
from swinv2_backbone.d2.evaluation.analysis.matching import match, match_images
from swinv2_backbone.d2.evaluation.analysis.pictures import (
    CAPTION,
    FALSE,
    MISSED,
    RIGHT,
    draw_detections,
    draw_segmentation,
)
from swinv2_backbone.d2.evaluation.analysis.precision_recall import draw_precision_recall
from swinv2_backbone.d2.evaluation.analysis.segmentation import (
    compare_segmentation,
)


@pytest.mark.parametrize("count", [1, 5, 80])
def test_the_heat_map_is_a_picture_of_readable_size(count, tmp_path):
    figure = draw_confusion(many_classes(count), "title")
    assert len(figure.axes[0].get_yticks()) == min(count, 30) + 1
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels[-2:] == [f"class {count - 1}", "missed"]
    assert_is_a_picture(pixels(figure, tmp_path))


def test_precision_recall_curves_are_those_of_the_classes(compared, tmp_path):
    evaluation = evaluate(compared([*PERFECT[:3], found(2, DOG, MEDIUM, 0.8)]), "bbox")
    figure = draw_precision_recall(evaluation, ["dog", "cat"], "title")
    for axes in figure.axes[:2]:
        lines = {line.get_label(): line.get_ydata() for line in axes.lines}
        assert list(lines) == ["dog", "cat", "mean"]
        assert lines["cat"].tolist() == pytest.approx([1] * 51 + [0] * 50)
        assert lines["mean"].tolist() == pytest.approx([1] * 51 + [0.5] * 50)
    assert_is_a_picture(pixels(figure, tmp_path))


def test_a_class_without_objects_has_no_curve_and_no_part_in_the_mean(compared):
    evaluation = evaluate(
        compared(PERFECT, [one for one in TRUTH if one["category_id"] == DOG]), "bbox"
    )
    axes = draw_precision_recall(evaluation, ["dog", "cat"], "title").axes[0]
    assert [line.get_label() for line in axes.lines] == ["dog", "mean"]
    assert axes.lines[-1].get_ydata().tolist() == pytest.approx([1] * 101)


def test_a_picture_of_detections_names_what_became_of_them(compared, tmp_path):
    detections = compared([PERFECT[0], found(1, CAT, [60, 2, 20, 20])])
    matches = match_images(detections, 0.5, 0.5)[1]
    picture = draw_detections(str(tmp_path / "1.png"), matches, detections)
    assert_is_a_picture(picture)
    left, right = np.array_split(picture, 2, axis=1)
    assert caption_has(left, RIGHT) and caption_has(left, MISSED) and not caption_has(left, FALSE)
    assert caption_has(right, RIGHT) and caption_has(right, FALSE)
    assert not caption_has(right, MISSED)


def test_images_without_objects_or_detections_are_drawn(compared, tmp_path):
    detections = compared([found(2, CAT, SMALL)], TRUTH[:1])
    for image, one in match_images(detections, 0.5, 0.5).items():
        assert_is_a_picture(draw_detections(str(tmp_path / f"{image}.png"), one, detections))


@pytest.mark.parametrize("size, height", [((30, 40), 400), ((600, 500), 600), ((2000, 900), 1000)])
def test_pictures_have_a_size_that_can_be_looked_at(compared, tmp_path, size, height):
    cv2.imwrite(str(tmp_path / "any.png"), np.zeros((*size, 3), np.uint8))
    detections = compared([])
    picture = draw_detections(str(tmp_path / "any.png"), match([], [], 0.5), detections)
    assert picture.shape[0] == height + CAPTION


def test_polygons_and_degenerate_polygons_are_drawn(compared, tmp_path):
    truth = [
        an_object(1, DOG, SMALL, segmentation=[[5, 5, 25, 5, 25, 25], [1, 1]]),
        an_object(1, CAT, MEDIUM, segmentation=[[1, 1]]),
    ]
    detections = compared([], truth)
    one = match_images(detections, 0.5, 0.5)[1]
    assert_is_a_picture(draw_detections(str(tmp_path / "1.png"), one, detections))


def test_a_segmentation_is_drawn_in_the_same_colors_on_both_sides(registered, tmp_path):
    truth = np.zeros((60, 80), int)
    truth[:, 40:] = 1
    truth[:10] = 255
    name = registered.semantic(tmp_path, [truth], ["sky", "tree"])
    predicted = np.where(truth == 255, 0, truth)
    compared = compare_segmentation(name, segments(DatasetCatalog.get(name)[0], predicted))
    picture = draw_segmentation(compared.images[0], ["sky", "tree"], 100.0)
    assert_is_a_picture(picture)
    left, right = np.array_split(picture[CAPTION:].astype(int), 2, axis=1)
    assert np.abs(left[100:] - right[100:])[:, :-20].mean() < 5  # but for where texts lie
    assert np.abs(left[:50] - right[:50])[:, :-20].mean() > 20  # the ignored pixels
