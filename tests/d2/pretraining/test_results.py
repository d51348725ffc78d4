"""The weights, pictures and metrics of a SimMIM pre-training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from small_pretraining import RECIPE, SMALL, pretrained, small_backbone, train, write_images

from swinv2_backbone import SwinV2, load_checkpoint
from swinv2_backbone.d2 import add_swinv2_config
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.pretraining.masked import MaskedImages, find_images
from swinv2_backbone.d2.pretraining.reconstruction import FixedImages


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory) -> tuple[SwinV2, Path]:
    return pretrained(folder, tmp_path_factory.mktemp("trained"))


def test_a_backbone_takes_the_weights_and_their_pretrained_windows(trained):
    backbone = small_backbone(out_features=("res2", "res3", "res4", "res5"))
    backbone.set_window_size(8)
    report = load_checkpoint(backbone, trained[1] / "model_final.pth")
    found, expected = backbone.state_dict(), trained[0].state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert report.layout == "native"
    assert report.pretrained_windows.sizes == ((4, 4), (4, 4), (4, 4), (2, 2))
    assert report.pretrained_windows.source == "our notes in the file"


def test_a_detector_starts_from_it(trained):
    cfg = get_cfg()
    add_swinv2_config(cfg)
    cfg.MODEL.DEVICE, cfg.MODEL.META_ARCHITECTURE = "cpu", "RetinaNet"
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_swinv2_fpn_backbone"
    cfg.MODEL.SWINV2.VARIANT = None
    cfg.MODEL.SWINV2.EMBED_DIM, cfg.MODEL.SWINV2.DEPTHS = SMALL.embed_dim, list(SMALL.depths)
    cfg.MODEL.SWINV2.NUM_HEADS, cfg.MODEL.SWINV2.WINDOW_SIZE = list(SMALL.num_heads), 4
    cfg.MODEL.SWINV2.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    detector = build_model(cfg)
    checkpointer = Checkpointer(detector)
    checkpointer.load(str(trained[1] / "model_final.pth"), checkpointables=[])
    found = detector.backbone.bottom_up.swinv2.state_dict()
    expected = trained[0].state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert "0 missing, 0 of another shape" in checkpointer.report


def test_pictures_show_the_image_what_is_seen_of_it_and_what_became_of_that(trained, folder):
    picture = cv2.imread(str(trained[1] / "reconstructions" / "0000007.png"))[:, :, ::-1]
    assert picture.shape == (8 * 68, 3 * 68, 3)
    mapper = MaskedImages(64, 16, 0.6)
    fixed = FixedImages(find_images(folder), mapper, seed=0)
    image, seen, filled = (picture[:64, x : x + 64] for x in (0, 68, 136))
    hidden = fixed.masks[0].repeat_interleave(4, 0).repeat_interleave(4, 1).numpy()
    assert np.array_equal(image, fixed.images[0].permute(1, 2, 0).numpy())
    assert (seen[hidden] == 128).all() and np.array_equal(seen[~hidden], image[~hidden])
    assert np.array_equal(filled[~hidden], image[~hidden])
    assert len(np.unique(filled[hidden])) > 20


def test_the_loss_of_the_pictures_is_among_the_metrics(trained):
    lines = [json.loads(line) for line in (trained[1] / "metrics.json").read_text().splitlines()]
    assert 0 < lines[-1]["fixed_images/loss"] < 3
    assert json.loads((trained[1] / "recipe.json").read_text())["images"] == 10


def test_old_checkpoints_make_room(folder, tmp_path):
    train(folder, tmp_path, dataclasses.replace(RECIPE, period=1))
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == [
        "model_0000003.pth",
        "model_0000004.pth",
        "model_0000005.pth",
        "model_final.pth",
    ]
