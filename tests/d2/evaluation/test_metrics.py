"""Faults of an evaluation are found before training, as options of the training plan."""

from __future__ import annotations

import re

import pytest

from swinv2_backbone.d2.evaluation.metrics import evaluation_faults


def only_fault(*args, **options) -> tuple[str, str]:
    (fault,) = evaluation_faults(*args, **options)
    return fault


@pytest.mark.parametrize("metric", ["bbox/AP", "segm/AP50", "bbox/AP-person", ""])
def test_metrics_of_the_test_set_are_accepted(metric):
    assert evaluation_faults(["coco_2017_val"], metric) == []


def test_no_test_set_is_accepted_without_a_metric():
    assert evaluation_faults([]) == []
    option, message = only_fault([], "bbox/AP")
    assert option == "evaluation.best_metric"
    assert re.search("'bbox/AP' needs exactly one dataset.*got 0", message)


def test_mask_metrics_are_refused_for_a_model_without_masks():
    option, message = only_fault(["coco_2017_val"], "segm/AP", masks=False)
    assert option == "evaluation.best_metric"
    assert re.search("'segm/AP' is not a metric.* must be one of bbox/AP, ", message)
    assert "segm/AP50" not in message


def test_a_dataset_without_an_evaluator_is_refused():
    option, message = only_fault(["of_no_kind"])
    assert option == "data.test"
    assert re.search("'of_no_kind' has the evaluator_type None.*coco", message)


@pytest.mark.parametrize("metric", ["AP", "bbox/mAP", "sem_seg/mIoU", "bbox", "bbox/AP-unicorn"])
def test_metrics_that_the_test_set_lacks_are_refused(metric):
    option, message = only_fault(["coco_2017_val"], metric)
    assert option == "evaluation.best_metric"
    assert re.match(f"'{metric}'.*bbox/AP, .*segm/AP50", message)


def test_the_best_of_several_test_sets_is_not_defined():
    option, message = only_fault(["coco_2017_val", "coco_2017_val_100"], "bbox/AP")
    assert option == "evaluation.best_metric"
    assert re.search("'bbox/AP' needs exactly one dataset.*got 2", message)


def test_a_missing_panopticapi_is_found(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    option, message = only_fault(["coco_2017_val_panoptic_separated"])
    assert option == "data.test"
    assert re.search("coco_2017_val_panoptic_separated.*pip install.*panoptic", message)


def test_all_faults_are_reported_and_none_names_a_key_of_a_config():
    faults = evaluation_faults(["of_no_kind", "of_no_kind_either"], "bbox/mAP")
    assert [option for option, _ in faults] == ["data.test", "data.test", "evaluation.best_metric"]
    assert not any(re.search(r"TEST\.|train\.|dataloader\.", message) for _, message in faults)
