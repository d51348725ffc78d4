"""A trained model on images in memory: batches, sizes and numbers of channels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from small_predictor import write_model

from swinv2_backbone.d2.inference.prediction import Prediction
from swinv2_backbone.d2.inference.predictor import Predictor, load_predictor

STEMS = ("mask_rcnn_swinv2", "semantic_fpn_swinv2_tiny_ade20k", "panoptic_fpn_swinv2_tiny")
SIZES = ((40, 60), (60, 40), (80, 120), (33, 47), (40, 60))


@pytest.fixture(scope="module")
def predictors(tmp_path_factory) -> dict[str, Predictor]:
    folder = tmp_path_factory.mktemp("models")
    MetadataCatalog.get("pixels_of_predictors").set(stuff_classes=["x", "y", "z"])
    changes = {"INPUT__MIN_SIZE_TEST": 48, "INPUT__MAX_SIZE_TEST": 64}
    found = {}
    for stem in STEMS:
        tests = ("pixels_of_predictors",) if "panoptic" in stem else ()
        config = write_model(folder / stem, stem, DATASETS__TEST=tests, **changes)
        found[stem] = load_predictor(str(config), confidence=0.0)
    MetadataCatalog.remove("pixels_of_predictors")
    return found


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def assert_close(one: Prediction, other: Prediction) -> None:
    if one.instances is not None:
        assert len(one.instances) == len(other.instances) > 0
        for name, value in one.instances.get_fields().items():
            pair = (value, other.instances.get(name))
            a, b = (getattr(each, "tensor", each).float() for each in pair)
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    if one.labels is not None:
        assert one.labels.shape == other.labels.shape
        assert (one.labels == other.labels).mean() > 0.999
    if one.panoptic is not None:
        assert (one.panoptic[0] == other.panoptic[0]).float().mean() > 0.999
        assert len(one.panoptic[1]) == len(other.panoptic[1])


@pytest.mark.parametrize("stem", STEMS)
def test_a_batch_of_several_sizes_has_the_predictions_of_single_images(predictors, stem):
    images = [noise(*size, seed=seed) for seed, size in enumerate(SIZES)]
    predictor = predictors[stem]
    together = predictor.predict_batch(images)
    assert len(together) == len(images)
    for image, found in zip(images, together):
        assert_close(predictor(image), found)


def test_images_of_one_size_enter_the_model_together(predictors):
    predictor = predictors["mask_rcnn_swinv2"]
    sizes = []
    hook = predictor.model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    predictor.predict_batch([noise(*size) for size in SIZES])
    hook.remove()
    assert sizes == [3, 1, 1]  # 80 x 120 and 40 x 60 have one size after resizing


def test_repeated_calls_on_the_cpu_return_the_same_bits(predictors):
    images = [noise(*size, seed=seed) for seed, size in enumerate(SIZES)]
    for predictor in predictors.values():
        for one, other in zip(predictor.predict_batch(images), predictor.predict_batch(images)):
            assert str(predictor.records(one)) == str(predictor.records(other))


def test_images_of_another_shape_and_half_precision_on_a_cpu_are_errors(predictors):
    predictor = predictors["mask_rcnn_swinv2"]
    with pytest.raises(ValueError, match="has 4 channels or bands, but the model takes 3"):
        predictor.predict_batch([np.zeros((8, 8, 4), np.uint8)])
    with pytest.raises(ValueError, match=r"shape \(H, W, channels\), got \(8, 8\)"):
        predictor(np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="half precision needs a GPU, the model is on cpu"):
        dataclasses.replace(predictor, half=True)
