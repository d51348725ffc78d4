"""The checkpointer: weights of any layout load, trainings resume, and no file runs code."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from functools import partial

import numpy as np
import pytest
import torch
from checkpoint_files import SMALL, TINY, assert_equal, published
from detectron2.modeling import build_model
from publishers import headless, native_state
from torch import nn

from swinv2_backbone.checkpoints import fetch as download
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.engine.checkpoint import Checkpointer

PLACE = "backbone.bottom_up.swinv2."


def detector(**options) -> nn.Module:
    """Build a Mask R-CNN with a small SwinV2 that no variant has."""
    settings = {
        "EMBED_DIM": 32,
        "DEPTHS": (2, 2, 2, 2),
        "NUM_HEADS": (1, 2, 4, 8),
        "WINDOW_SIZE": 8,
        **options,
    }
    opts = ["MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "MODEL.SWINV2.VARIANT", "None"]
    opts += ["MODEL.ROI_BOX_HEAD.FC_DIM", "16", "MODEL.ROI_MASK_HEAD.CONV_DIM", "16"]
    for key, value in settings.items():
        opts += [f"MODEL.SWINV2.{key}", str(value)]
    return build_model(load_config("configs/mask_rcnn_swinv2.yaml", opts))


@pytest.fixture(autouse=True)
def in_the_project(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)


@pytest.fixture(scope="module")
def state():
    return native_state(SMALL, num_classes=10)


def backbone_state(model: nn.Module) -> dict:
    found = {
        key.removeprefix(PLACE): value
        for key, value in model.state_dict().items()
        if key.startswith(PLACE)
    }
    assert found
    return found


@pytest.mark.parametrize("publisher", ["microsoft", "mmpretrain", "simmim"])
def test_published_weights_load_into_a_whole_detector(publisher, state, tmp_path, caplog):
    caplog.set_level("INFO")
    model = detector()
    untouched = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith(PLACE)}
    checkpointer = Checkpointer(model)
    path = published(state, SMALL, publisher, tmp_path)
    assert checkpointer.load(str(path), checkpointables=[]) == {}
    found = backbone_state(model)
    assert_equal({key: found[key] for key in headless(state)}, headless(state))
    assert_equal({k: v for k, v in model.state_dict().items() if k in untouched}, untouched)
    assert model.backbone.bottom_up.swinv2.pretrained_window_sizes[-1] == (3, 3)
    assert "output norms of res2, res3, res4" in caplog.text
    assert "roi_heads.box_head" in caplog.text  # new tensors are reported
    with pytest.raises(ValueError, match="do not cover the whole model"):
        checkpointer.require_complete()


def test_checkpoints_are_complete_and_have_their_pretrained_windows(tmp_path):
    first = detector(PRETRAINED_WINDOW_SIZES="(6, 6, 6, 3)")
    Checkpointer(first, str(tmp_path)).save("model", iteration=7)
    second = detector(WINDOW_SIZE=12)  # the config has no pretrained windows
    checkpointer = Checkpointer(second)
    checkpointer.load(str(tmp_path / "model.pth"), checkpointables=[])
    checkpointer.require_complete()
    assert_equal(second.state_dict(), first.state_dict())
    assert second.backbone.bottom_up.swinv2.pretrained_window_sizes[-1] == (3, 3)


def test_resuming_restores_everything_with_the_pretrained_windows(tmp_path):
    first = detector(PRETRAINED_WINDOW_SIZES="(6, 6, 6, 3)")
    Checkpointer(first, str(tmp_path)).save("model", iteration=7)
    second = detector()
    extra = Checkpointer(second, str(tmp_path)).resume_or_load("", resume=True)
    assert extra["iteration"] == 7
    assert_equal(second.state_dict(), first.state_dict())
    assert second.backbone.bottom_up.swinv2.pretrained_window_sizes[0] == (6, 6)
    contradicting = detector(PRETRAINED_WINDOW_SIZES="8")
    with pytest.raises(ValueError, match="8, 8, 8, 8.*trained with 6, 6, 6, 3"):
        Checkpointer(contradicting, str(tmp_path)).resume_or_load("", resume=True)
    bigger = detector(DEPTHS=(2, 2, 3, 2), PRETRAINED_WINDOW_SIZES="(6, 6, 6, 3)")
    before = {key: value.clone() for key, value in bigger.state_dict().items()}
    with pytest.raises(ValueError, match=r"(?s)model.pth does not fit .* 17 of 216 .* missing"):
        Checkpointer(bigger, str(tmp_path)).resume_or_load("", resume=True)
    assert_equal(bigger.state_dict(), before)


def test_partial_weights_are_loaded_only_on_request(state, tmp_path):
    path = published(state, SMALL, "microsoft", tmp_path)
    content = torch.load(path, weights_only=True)
    del content["model"]["norm.bias"]
    torch.save(content, path)
    with pytest.raises(ValueError, match="norms.res5.bias"):
        Checkpointer(detector()).load(str(path), checkpointables=[])
    checkpointer = Checkpointer(detector(), partial=True)
    checkpointer.load(str(path), checkpointables=[])
    assert "1 missing" in checkpointer.report


def test_weights_by_name_are_found(monkeypatch, tmp_path):
    path = published(native_state(TINY), TINY, "mmpretrain", tmp_path)
    monkeypatch.setattr(download, "download", lambda url, folder, digest: path)
    cfg = load_config("configs/mask_rcnn_swinv2.yaml", ["MODEL.DEVICE", "cpu"])
    assert f"swinv2://{TINY}" == cfg.MODEL.WEIGHTS
    model = build_model(cfg)
    Checkpointer(model).load(cfg.MODEL.WEIGHTS, checkpointables=[])
    found = backbone_state(model)
    expected = headless(native_state(TINY))
    assert_equal({key: found[key] for key in expected}, expected)
    swinv2 = model.backbone.bottom_up.swinv2
    assert swinv2.pretrained_window_sizes[0] == (8, 8) and swinv2.window_sizes[0] == (16, 16)


@pytest.mark.parametrize("place", ["{}", "zoo://{}"])
def test_the_digest_of_weights_is_checked(place, tmp_path, monkeypatch):
    """Also in a detector without a SwinV2, and for an address that Detectron2 opens (zoo://)."""
    Checkpointer(detector(PRETRAINED_WINDOW_SIZES="8"), str(tmp_path)).save("model")
    torch.save({"model": nn.Linear(2, 2).state_dict()}, tmp_path / "other.pth")
    for name, model in (("model", detector()), ("other", nn.Linear(2, 2))):
        file, loaded = tmp_path / f"{name}.pth", Checkpointer(model)
        opened = partial(re.sub, "^zoo://", "")
        monkeypatch.setattr(loaded.path_manager, "get_local_path", opened)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        loaded.load(f"{place.format(file)}#sha256={digest}", checkpointables=[])
        loaded.require_complete()
        with pytest.raises(ValueError, match=f"its SHA-256 is {digest}, not 00"):
            loaded.load(f"{place.format(file)}#sha256={64 * '0'}", checkpointables=[])


def test_resuming_requires_every_tensor_and_names_the_fault(tmp_path):
    model = detector(PRETRAINED_WINDOW_SIZES="8")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    key = "roi_heads.box_predictor.cls_score.weight"
    lacking = {k: v for k, v in before.items() if k != key}
    poisoned = {**before, key: before[key] * float("nan")}
    reshaped = {**before, key: before[key][:-1]}
    wrong = {
        f"tensors of the model are missing or of another shape: {key}": {"model": lacking},
        f"NaN or infinity: {key}": {"model": poisoned},
        "tensors of the model are missing or of another shape: .*expected": {"model": reshaped},
        "has no training state: it is a list": [1],
        "reading it might run code": {"model": before, "trainer": {"lr": np.float64(1)}},
        "the pretrained windows cannot be read": {
            "model": before,
            "swinv2_backbone": {"pretrained_window_sizes": [float("inf")] * 4},
        },
    }
    for words, content in wrong.items():
        torch.save(content, tmp_path / "wrong.pth")
        with pytest.raises(ValueError, match=r"(?s)wrong.pth.*" + words):
            Checkpointer(model).load(str(tmp_path / "wrong.pth"))
        assert_equal(model.state_dict(), before)
    (tmp_path / "wrong.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="wrong.pth"):
        Checkpointer(model).load(str(tmp_path / "wrong.pth"))
    with pytest.raises(FileNotFoundError, match=r"nowhere.pth"):
        Checkpointer(model).load(str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize("norm", ["BN", "GN"])
def test_detectors_with_other_norms_load_their_own_files(norm, tmp_path):
    def normed() -> nn.Module:
        model = detector(PRETRAINED_WINDOW_SIZES="8")
        model.neck = nn.BatchNorm2d(4) if norm == "BN" else nn.GroupNorm(2, 4)
        return model

    first, second = normed(), normed()
    Checkpointer(first, str(tmp_path)).save("model")
    for checkpointables in ([], None):
        checkpointer = Checkpointer(second)
        checkpointer.load(str(tmp_path / "model.pth"), checkpointables)
        checkpointer.require_complete()
        assert_equal(second.state_dict(), first.state_dict())


@pytest.mark.parametrize("resuming", [False, True])
@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".bin"])
def test_hostile_files_execute_nothing(suffix, resuming, tmp_path):
    path, sentinel = tmp_path / f"evil{suffix}", tmp_path / "executed"

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {sentinel}",)

    content = {"model": Hostile(), "__author__": "x"}
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=f"evil{suffix}"):
        Checkpointer(detector()).load(str(path), checkpointables=None if resuming else [])
    assert not sentinel.exists()


def test_models_without_a_swinv2_are_loaded_as_in_detectron2(tmp_path):
    torch.save({"model": {"weight": torch.ones(1, 1)}}, tmp_path / "x.pth")
    model = nn.Linear(1, 1)
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.load(str(tmp_path / "x.pth"), checkpointables=[])
    assert model.weight.item() == 1 and "1 of 2 tensors" in checkpointer.report
    checkpointer.save("y")
    assert "swinv2_backbone" not in torch.load(tmp_path / "y.pth", weights_only=True)
