"""Confusion of pixels and IoU of segmentations whose numbers are known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from analysis_cases import (
    segments,
)
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator

from swinv2_backbone.d2.evaluation.analysis.segmentation import (
    class_iou,
    compare_segmentation,
    mean_iou,
    only_predicted_classes,
)
from swinv2_backbone.d2.evaluation.analysis.tables import iou_text


def test_iou_is_that_of_the_formula():
    # Truth has 8 + 4 pixels; 6 + 3 of them are right.
    counts = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    assert class_iou(counts) == pytest.approx([100 * 6 / 9, 50, math.nan], nan_ok=True)
    assert mean_iou(counts) == pytest.approx(100 * (6 / 9 + 1 / 2) / 2)
    assert math.isnan(mean_iou(np.zeros((2, 2))))


def test_a_class_that_is_only_predicted_is_marked():
    counts = np.array([[6, 2, 1, 0], [4, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert only_predicted_classes(counts) == [2]
    iou = dict(zip(["sky", "road", "sea", "tree"], class_iou(counts).tolist()))
    lines = iou_text(iou, mean_iou(counts), ["sea"]).splitlines()[-3:]
    assert [" ".join(line.split()) for line in lines] == [
        "road 0.0",
        "sea (only predicted) 0.0",
        "tree -",
    ]


def test_perfect_segmentation_has_iou_100_and_a_diagonal_table(registered, tmp_path):
    truth = np.array([[0, 0, 1], [2, 2, 1]])
    name = registered.semantic(tmp_path, [truth], ["sky", "tree", "road"])
    compared = compare_segmentation(name, segments(DatasetCatalog.get(name)[0], truth))
    assert compared.confusion.counts.tolist() == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]
    assert compared.scores == [100] and compared.worst(5) == []


@pytest.mark.parametrize("palette", [False, True])
def test_ignored_pixels_do_not_count(registered, tmp_path, palette):
    truth, predicted = [[0, 0, 255], [1, 255, 255]], [[0, 1, 1], [1, 0, 0]]
    name = registered.semantic(tmp_path, [truth], ["sky", "tree"], palette=palette)
    compared = compare_segmentation(name, segments(DatasetCatalog.get(name)[0], predicted))
    assert compared.confusion.counts.tolist() == [[1, 1], [0, 1]]
    assert compared.scores == [pytest.approx(50)]


def test_the_worst_segmentation_comes_first(registered, tmp_path):
    truth = np.array([[0, 0, 0, 1]])
    name = registered.semantic(tmp_path, [truth, truth, truth, [[255] * 4]], ["sky", "tree"])
    records = DatasetCatalog.get(name)
    predicted = [[[0, 0, 1, 1]], truth, [[1, 1, 1, 0]], truth]
    entries = [one for r, labels in zip(records, predicted) for one in segments(r, labels)]
    compared = compare_segmentation(name, entries)
    assert compared.worst(5) == [2, 0]  # neither the perfect one nor the one that is all ignored
    assert compared.scores[:3] == pytest.approx([100 * (2 / 3 + 1 / 2) / 2, 100, 0])


def test_segmentation_equals_detectron2_on_its_own_file(registered, tmp_path):
    random = np.random.default_rng(0)
    truths = [random.choice([0, 1, 2, 255], (9, 7)) for _ in range(3)]
    name = registered.semantic(tmp_path, truths, ["sky", "tree", "road"])
    evaluator = SemSegEvaluator(name, distributed=False, output_dir=str(tmp_path / "out"))
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        logits = torch.tensor(random.normal(size=(3, 9, 7)))
        evaluator.process([record], [{"sem_seg": logits}])
    expected = evaluator.evaluate()["sem_seg"]
    entries = json.loads((tmp_path / "out" / "sem_seg_predictions.json").read_text())
    counts = compare_segmentation(name, entries).confusion.counts
    assert mean_iou(counts) == pytest.approx(expected["mIoU"])
    by_class = [expected[f"IoU-{label}"] for label in ("sky", "tree", "road")]
    assert class_iou(counts) == pytest.approx(by_class)


def test_category_ids_of_a_segmentation_become_classes(registered, tmp_path):
    name = registered.semantic(tmp_path, [[[0, 1]]], ["sky", "tree"])
    MetadataCatalog.get(name).stuff_dataset_id_to_contiguous_id = {92: 0, 180: 1}
    record = DatasetCatalog.get(name)[0]
    counts = compare_segmentation(name, segments(record, [[92, 180]])).confusion.counts
    assert counts.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError, match="unknown category 0"):
        compare_segmentation(name, segments(record, [[0, 180]]))


@pytest.mark.parametrize(
    "predicted, words",
    [
        ([[0, 1, 0]], "shape"),
        ([[0, 2]], "value 2"),
        (None, r"images without a prediction in the dataset .* \(1\)"),
    ],
)
def test_a_segmentation_that_does_not_fit_is_refused(registered, tmp_path, predicted, words):
    name = registered.semantic(tmp_path, [[[0, 1]]], ["sky", "tree"])
    record = DatasetCatalog.get(name)[0]
    entries = [] if predicted is None else segments(record, predicted)
    with pytest.raises(ValueError, match=words):
        compare_segmentation(name, entries)


def test_a_segmentation_with_holes_or_of_another_image_is_refused(registered, tmp_path):
    name = registered.semantic(tmp_path, [[[0, 1]]], ["sky", "tree"])
    entries = segments(DatasetCatalog.get(name)[0], [[0, 1]])
    with pytest.raises(ValueError, match="pixels without a class"):
        compare_segmentation(name, entries[:1])
    with pytest.raises(ValueError, match="not in the dataset.*other.jpg"):
        compare_segmentation(name, [*entries, {**entries[0], "file_name": "other.jpg"}])


def test_labels_above_the_number_of_classes_are_refused(registered, tmp_path):
    name = registered.semantic(tmp_path, [[[0, 2]]], ["sky", "tree"])
    with pytest.raises(ValueError, match="0.png has the value 2.*2 classes"):
        compare_segmentation(name, segments(DatasetCatalog.get(name)[0], [[0, 1]]))
