"""Average precision of detections whose numbers are known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from analysis_cases import (
    DOG,
    MEDIUM,
    PERFECT,
    SIZE,
    SMALL,
    TRUTH,
    an_object,
    found,
    precisions,
    rle,
)
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BitMasks, Boxes, Instances
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.evaluation.analysis.average_precision import average_precisions, evaluate
from swinv2_backbone.d2.evaluation.analysis.detections import load_detections


def test_perfect_detections_have_ap_100(compared):
    table = precisions(compared(PERFECT))
    assert list(table["classes"]) == ["dog", "cat"]
    expected = {"AP": 100, "AP50": 100, "AP75": 100, "APs": 100, "APm": 100, "APl": math.nan}
    assert table["all"] == pytest.approx(expected, nan_ok=True)
    # All dogs are small and all cats of medium size.
    assert table["classes"]["dog"] == pytest.approx({**expected, "APm": math.nan}, nan_ok=True)
    assert table["classes"]["cat"] == pytest.approx({**expected, "APs": math.nan}, nan_ok=True)


def test_a_swapped_class_costs_half_of_the_recall(compared):
    swapped = [*PERFECT[:3], found(2, DOG, MEDIUM, 0.8)]
    table = precisions(compared(swapped))["classes"]
    # Of COCO's 101 recalls the 51 up to 0.5 are reached, with precision 1.
    assert table["cat"]["AP"] == pytest.approx(100 * 51 / 101)
    assert table["dog"]["AP"] == pytest.approx(100)  # the false one has a lower score


@pytest.mark.parametrize("iou, passed", [(0.67, 4), (0.72, 5), (0.77, 6)])
def test_ap_counts_the_thresholds_that_the_boxes_pass(compared, iou, passed):
    lower = [found(o["image_id"], o["category_id"], o["bbox"]) for o in TRUTH]
    for one in lower:
        x, y, width, height = one["bbox"]
        one["bbox"] = [x, y, width, height * iou]
    table = precisions(compared(lower))
    for scores in (table["all"], *table["classes"].values()):
        values = (scores["AP"], scores["AP50"], scores["AP75"])
        assert values == pytest.approx((10 * passed, 100, 100 if iou > 0.75 else 0))


def test_no_detections_have_ap_0(compared):
    table = precisions(compared([]))
    assert table["all"]["AP"] == table["classes"]["cat"]["AP50"] == 0
    assert math.isnan(table["all"]["APl"])


def test_masks_are_evaluated_as_masks(compared):
    halves = [
        {**one, "segmentation": rle([*one["bbox"][:3], one["bbox"][3] // 2])} for one in PERFECT
    ]
    detections = compared(halves)
    assert detections.tasks == ("bbox", "segm")
    assert precisions(detections, "bbox")["all"]["AP"] == pytest.approx(100)
    # The IoU of the masks is 1/2: the first of ten thresholds.
    table = precisions(detections, "segm")["all"]
    assert (table["AP"], table["AP50"], table["AP75"]) == pytest.approx((10, 100, 0))


def test_the_size_of_a_mask_is_that_of_its_pixels(compared):
    # A false detection with a big box but few pixels is small, so it counts among the small ones.
    thin = found(1, DOG, [10, 30, 60, 60], 0.95, segmentation=rle([10, 30, 60, 2]))
    truth = [an_object(1, DOG, SMALL)]
    detections = compared([thin, found(1, DOG, SMALL, segmentation=rle(SMALL))], truth)
    assert precisions(detections, "segm")["all"]["APs"] == pytest.approx(50)
    assert precisions(detections, "bbox")["all"]["APs"] == pytest.approx(100)


@pytest.mark.parametrize("without", ["an object", "a detection"])
def test_masks_are_left_alone_where_one_is_missing(compared, without):
    truth = [dict(one) for one in TRUTH]
    found_masks = [{**one, "segmentation": rle(one["bbox"])} for one in PERFECT]
    side = truth if without == "an object" else found_masks
    side[-1]["segmentation"] = []
    assert compared(found_masks, truth).tasks == ("bbox",)


def instances(boxes: list, classes: list[int], scores: list[float]) -> Instances:
    one = Instances(SIZE)
    x, y, width, height = np.array(boxes, float).T
    one.pred_boxes = Boxes(torch.tensor(np.stack([x, y, x + width, y + height], 1)))
    one.pred_classes, one.scores = torch.tensor(classes), torch.tensor(scores)
    masks = torch.stack([torch.tensor(coco_mask.decode(rle(box))) for box in boxes])
    one.pred_masks = BitMasks(masks).tensor
    return one


def test_numbers_are_those_of_detectron2_on_its_own_file(registered, tmp_path):
    name = registered(tmp_path, TRUTH)
    evaluator = COCOEvaluator(
        name, output_dir=str(tmp_path / "out"), use_fast_impl=False, distributed=False
    )
    evaluator.reset()
    predicted = {
        1: instances([[5, 5, 20, 15], MEDIUM, [60, 60, 20, 20]], [0, 1, 0], [0.7, 0.6, 0.8]),
        2: instances([SMALL, [40, 40, 36, 44]], [1, 1], [0.9, 0.5]),
    }
    for image, one in predicted.items():
        evaluator.process([{"image_id": image}], [{"instances": one}])
    expected = evaluator.evaluate()
    entries = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    for task in ("bbox", "segm"):
        table = precisions(load_detections(name, entries), task)
        assert 0 < table["all"]["AP"] < 100
        for metric, value in table["all"].items():
            assert value == pytest.approx(expected[task][metric], nan_ok=True), metric
        for label, scores in table["classes"].items():
            assert scores["AP"] == pytest.approx(expected[task][f"AP-{label}"])


def test_detections_of_another_dataset_are_refused(compared):
    with pytest.raises(ValueError, match="image_id.*such as 5"):
        compared([found(5, DOG, SMALL)])
    with pytest.raises(ValueError, match="category_id.*such as 0"):
        compared([found(1, 0, SMALL)])


def test_a_truth_without_objects_is_refused(compared):
    with pytest.raises(ValueError, match="no annotations"):
        compared([], [])


def test_a_dataset_without_a_coco_format_file_is_refused(registered, tmp_path):
    name = registered.semantic(tmp_path, [[[0, 1]]], ["sky", "tree"])
    with pytest.raises(ValueError, match="not registered with a COCO-format JSON"):
        load_detections(name, [])


def test_as_many_detections_count_as_the_model_returns(compared):
    boxes = [[x, y, 3, 3] for x in range(0, 100, 5) for y in range(0, 75, 5)]
    truth = [{**an_object(1, DOG, box), "id": number} for number, box in enumerate(boxes, 1)]
    detections = compared([found(1, DOG, box) for box in boxes], truth)
    by_limit = {
        most: average_precisions(evaluate(detections, "bbox", most), detections)
        for most in (100, 300)
    }
    for most, expected in ((100, 100 * 34 / 101), (300, 100)):
        table = by_limit[most]
        assert table["all"]["AP"] == pytest.approx(expected)
        assert table["classes"]["dog"]["AP"] == pytest.approx(expected)
        assert table["all"]["AP50"] == table["all"]["APs"] == table["all"]["AP"]
