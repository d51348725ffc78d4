"""Exported files in Detectron2's evaluation: the outputs are those of the model."""

from __future__ import annotations

import pytest
import torch
from oracle import randomize
from small_configs import yaml_config

from swinv2_backbone.d2.export import evaluate
from swinv2_backbone.d2.export.evaluate import ExportedModel, load_exported
from swinv2_backbone.d2.export.model import exportable_part
from swinv2_backbone.export.check import random_pixels
from swinv2_backbone.export.fitting import fit
from swinv2_backbone.export.opened import open_exported

MEAN = (10.0, 20.0, 30.0)


@pytest.mark.parametrize(
    ("stem", "what"),
    [("mask_rcnn_swinv2_demo", "detector"), ("upernet_swinv2_demo", "semantic")],
)
def test_a_file_returns_what_the_model_returns(stem, what):
    """The masks are pasted, and everything is resized to the image's own height and width."""
    from detectron2.modeling import build_model

    cfg = yaml_config(stem, small=True)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    model = randomize(build_model(cfg), seed=0).eval()
    expected = exportable_part(model, what, "RGB").expected
    inputs = [
        {"image": random_pixels((3, 64, 50)), "height": 100, "width": 90},
        {"image": random_pixels((3, 40, 70))},
    ]
    with torch.no_grad():
        found = ExportedModel(expected, MEAN)(inputs)
        outputs = [model([one])[0] for one in inputs]  # not padded to a common size
    for one, other in zip(found, outputs, strict=True):
        assert list(one) == list(other)
        if what == "semantic":
            assert one["sem_seg"].shape == other["sem_seg"].shape
            assert (one["sem_seg"] - other["sem_seg"]).abs().max() < 1e-4
            continue
        assert len(one["instances"]) == len(other["instances"]) > 0
        assert one["instances"].image_size == other["instances"].image_size
        for field in ("pred_classes", "pred_masks", "scores"):
            assert torch.equal(getattr(one["instances"], field), getattr(other["instances"], field))
        boxes, others = (each["instances"].pred_boxes.tensor for each in (one, other))
        assert torch.equal(boxes, others)


def test_images_fit_into_a_file_of_a_fixed_size():
    """A box over the whole image is over the whole image, whether it was shrunk or only padded."""
    seen = []

    def run(images):
        seen.append(images)
        boxes = torch.tensor([[0.0, 0.0, 40.0, 30.0], [-5.0, 0.0, 64.0, 15.0]])
        return {"boxes": boxes, "scores": torch.ones(2), "classes": torch.zeros(2).long()}

    image = torch.full((3, 60, 80), 7.0)
    model = ExportedModel(run, MEAN, size=(30, 64), batch=2)
    (found,) = model([{"image": image, "height": 120, "width": 160}])
    expected = [[0, 0, 160, 120], [0, 0, 160, 60]]
    assert found["instances"].pred_boxes.tensor.tolist() == expected
    (images,) = seen
    assert images.shape == (2, 3, 30, 64) and (images[:, :, :, :40] == 7).all()
    assert torch.equal(images[1, :, 3, 50], torch.tensor(MEAN))
    small = torch.rand(3, 20, 33)
    fitted = fit(small, (30, 64), MEAN)
    assert fitted.size == (20, 33) and torch.equal(fitted.image[:, :20, :33], small)


def test_a_mask_belongs_to_the_box_that_reaches_into_the_padding():
    """The mask covers the left half of the box, 0 to 20, of an image that ends at 30."""
    mask = torch.zeros(1, 28, 28)
    mask[:, :, :14] = 1

    def run(images):
        boxes = torch.tensor([[0.0, 0.0, 40.0, 20.0]])
        ones = {"scores": torch.ones(1), "classes": torch.zeros(1).long()}
        return {"boxes": boxes, "masks": mask, **ones}

    (found,) = ExportedModel(run, MEAN, size=(64, 64))([{"image": torch.zeros(3, 20, 30)}])
    detection = found["instances"]
    assert detection.pred_boxes.tensor.tolist() == [[0, 0, 30, 20]]
    assert detection.pred_masks[0].sum() == 20 * 20 and detection.pred_masks[0, :, :20].all()


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        ({"what": "backbone+fpn"}, "is backbone[+]fpn: only files of --what detector or semantic"),
        ({}, "is a model: only"),
        ({"what": "detector", "input": "images, (1, 3), BGR, 0 to 255"}, "config reads RGB images"),
    ],
)
def test_files_that_cannot_be_evaluated_are_refused(notes, words, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "open_exported", lambda path: (None, notes))
    with pytest.raises(ValueError, match=words):
        load_exported(tmp_path / "a.onnx", "RGB")


def test_only_exported_files_are_opened(tmp_path):
    with pytest.raises(FileNotFoundError, match="no exported file"):
        open_exported(tmp_path / "a.onnx")
    other = tmp_path / "model_final.pth"
    other.touch()
    with pytest.raises(ValueError, match="is no exported file: those end in [.]onnx"):
        open_exported(other)
