"""tools/convert_checkpoint.py: its users' libraries read its results."""

from __future__ import annotations

import io
import json
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pytest
import timm as timm_models
import torch
from checkpoint_files import SMALL, TINY, assert_equal, published
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from models import pictures
from publishers import PUBLISHERS, filled_classifier, headless, native_state
from safetensors.torch import load_file
from scripts import ROOT
from transformers import AutoModelForImageClassification

from swinv2_backbone import SwinV2, Variant, load_checkpoint
from swinv2_backbone.checkpoints.read import read_checkpoint
from swinv2_backbone.d2 import add_swinv2_config
from swinv2_backbone.d2.engine.checkpoint import Checkpointer

TOOL = ROOT / "tools" / "convert_checkpoint.py"


class Result(NamedTuple):
    printed: str
    error: str  # its exit message; empty on success


def convert(*args) -> Result:
    """Run the script in this process."""
    printed, error = io.StringIO(), ""
    with patch.object(sys, "argv", [str(TOOL), *map(str, args)]), redirect_stdout(printed):
        try:
            runpy.run_path(str(TOOL), run_name="__main__")
        except SystemExit as exit:
            error = str(exit)
    return Result(printed.getvalue(), error)


def converted(*args) -> str:
    result = convert(*args)
    assert not result.error
    return result.printed


@pytest.fixture(scope="module")
def state():
    return native_state(TINY)


@pytest.fixture(scope="module")
def source(state, tmp_path_factory) -> Path:
    return published(state, TINY, "mmpretrain", tmp_path_factory.mktemp("source"))


def test_the_report_is_printed_and_the_result_checked(source, tmp_path):
    text = converted(source, tmp_path / "x.safetensors", "--check")
    for words in ("mmpretrain", "8, 8, 8, 8 per stage", "checked     221 tensors"):
        assert words in text, (words, text)


@torch.no_grad()
@pytest.mark.parametrize("suffix", [".safetensors", pytest.param(".pth", marks=pytest.mark.slow)])
def test_timm_reads_it(suffix, source, state, tmp_path):
    path = tmp_path / f"x{suffix}"
    converted(source, path, "--to", "timm", "--check")
    model = timm_models.create_model(TINY, checkpoint_path=str(path)).eval()
    images = pictures(1, 3, 256, 256)
    difference = (model(images) - filled_classifier(state, TINY)(images)).abs().max()
    assert difference < 1e-5


@pytest.mark.slow  # it also reads a smaller model below
@torch.no_grad()
def test_hugging_face_reads_it(source, state, tmp_path):
    converted(source, tmp_path / "folder", "--to", "huggingface", "--check")
    model, info = AutoModelForImageClassification.from_pretrained(
        tmp_path / "folder", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    images = pictures(1, 3, 256, 256)
    found = model.eval()(images).logits
    assert (found - filled_classifier(state, TINY)(images)).abs().max() < 1e-5


@torch.no_grad()
def test_hugging_face_reads_models_of_several_windows(tmp_path):
    """Windows of 8 and 4 tokens, with biases of 6 and 3."""
    state = native_state(SMALL)
    source = published(state, SMALL, "microsoft", tmp_path)
    converted(source, tmp_path / "folder", "--to", "huggingface")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "folder").eval()
    images = pictures(1, 3, SMALL.image_size, SMALL.image_size)
    assert (model(images).logits - filled_classifier(state, SMALL)(images)).abs().max() < 1e-5


@pytest.mark.parametrize("to", ["microsoft", pytest.param("mmpretrain", marks=pytest.mark.slow)])
def test_the_publishers_keys_and_buffers_are_written(to, source, state, tmp_path):
    converted(source, tmp_path / "x.pth", "--to", to)
    found = torch.load(tmp_path / "x.pth", weights_only=True)
    expected = PUBLISHERS[to](state, TINY)
    wrapper = "model" if to == "microsoft" else "state_dict"
    found, expected = found[wrapper], expected[wrapper]
    masks = {key for key in expected if key.endswith("attn_mask")}  # made from the image size
    assert found.keys() == expected.keys() - masks
    for key, value in found.items():
        assert value.dtype == expected[key].dtype
        assert torch.allclose(value, expected[key], rtol=0, atol=1e-6), key


def test_torchvisions_keys_and_buffers_are_written(source, state, tmp_path):
    converted(source, tmp_path / "x.safetensors", "--to", "torchvision", "--check")
    found, expected = load_file(tmp_path / "x.safetensors"), PUBLISHERS["torchvision"](state, TINY)
    assert found.keys() == expected.keys()
    for key, value in found.items():
        if key.endswith("qkv.bias"):  # the middle third is never used
            value[len(value) // 3 : 2 * len(value) // 3] = 0
            expected[key] = expected[key].clone()  # shared with other tests
            expected[key][len(value) // 3 : 2 * len(value) // 3] = 0
        assert torch.allclose(value, expected[key], rtol=0, atol=1e-6), key


@pytest.mark.parametrize(
    ("builder", "place"),
    [
        ("build_swinv2_fpn_backbone", "backbone.bottom_up.swinv2."),
        pytest.param("build_swinv2_backbone", "backbone.swinv2.", marks=pytest.mark.slow),
    ],
)
def test_detectron2s_own_checkpointer_reads_it(builder, place, source, state, tmp_path):
    path = tmp_path / "x.pth"
    converted(source, path, "--to", "detectron2", "--check")
    cfg = get_cfg()
    add_swinv2_config(cfg)
    cfg.MODEL.DEVICE, cfg.MODEL.BACKBONE.NAME = "cpu", builder
    cfg.MODEL.SWINV2.VARIANT = TINY
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = ["res4"]
    if "fpn" in builder:
        cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p4"]
    model = build_model(cfg)
    DetectionCheckpointer(model).load(str(path))
    found = {
        key.removeprefix(place): value
        for key, value in model.state_dict().items()
        if key.startswith(place) and ".norms.res" not in key.replace("norms.res5", "")
    }
    assert_equal(found, headless(state))


def test_the_backbone_of_a_detector_goes_back_to_timm(tmp_path):
    """A file of ours that was tuned at another window keeps its pretrained windows."""
    size = {"embed_dim": 32, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}
    bottom_up = SwinV2(**size, window_size=16, pretrained_window_sizes=8)
    detector = torch.nn.ModuleDict({"backbone": torch.nn.ModuleDict({"bottom_up": bottom_up})})
    Checkpointer(detector, str(tmp_path)).save("model_final")
    text = converted(tmp_path / "model_final.pth", tmp_path / "t.safetensors", "--to", "timm")
    assert "8, 8, 8, 8 per stage, from our notes" in text
    assert "left out    norms.res2.weight" in text
    report = load_checkpoint(SwinV2(**size, window_size=12), tmp_path / "t.safetensors")
    assert report.pretrained_windows.sizes == ((8, 8),) * 4


def test_files_that_do_not_state_their_windows_need_an_option(state, tmp_path):
    path = tmp_path / "silent.pth"
    torch.save(PUBLISHERS["timm"](state, TINY), path)
    result = convert(path, tmp_path / "x.pth")
    assert "give its variant" in result.error and not (tmp_path / "x.pth").exists()
    converted(path, tmp_path / "x.pth", "--variant", "swinv2-tiny-w16_3rdparty_in1k-256px")
    assert read_checkpoint(tmp_path / "x.pth").pretrained_windows.sizes[-1] == (8, 8)
    assert read_checkpoint(tmp_path / "x.pth").pretrained_windows.sizes[0] == (16, 16)
    wrong = convert(path, tmp_path / "y.pth", "--variant", "swinv2_base_window8_256")
    assert "has 128 channels" in wrong.error and "has 96 channels" in wrong.error
    wrong = convert(path, tmp_path / "y.pth", "--variant", TINY, "--window-size", 12)
    assert "PRETRAINED_WINDOW_SIZES" in wrong.error and "[8, 8, 8, 8] for" in wrong.error
    converted(path, tmp_path / "y.pth", "--pretrained-window-sizes", 8)
    assert read_checkpoint(tmp_path / "y.pth").pretrained_windows.sizes == ((8, 8),) * 4


def test_wrong_pretrained_windows_are_overridden(state, tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save(PUBLISHERS["timm"](state, TINY), path)
    config = {"architecture": TINY, "model_args": {"window_size": 8}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_checkpoint(path).pretrained_windows.sizes == ((8, 8),) * 4
    converted(path, tmp_path / "x.pth", "--pretrained-window-sizes", 16, 16, 16, 8, "--check")
    found = read_checkpoint(tmp_path / "x.pth").pretrained_windows
    assert found.sizes == ((16, 16), (16, 16), (16, 16), (8, 8))
    assert "notes" in found.source


def test_results_are_not_overwritten_unless_asked(tmp_path):
    state = native_state(SMALL)
    source = published(state, SMALL, "mmpretrain", tmp_path)
    target = tmp_path / "x.pth"
    target.write_text("precious")
    result = convert(source, target)
    assert result.error.startswith("FileExistsError")
    assert target.read_text() == "precious"
    (tmp_path / "config.json").write_text("precious")
    result = convert(source, tmp_path / "model.safetensors", "--to", "huggingface")
    assert "config.json exists" in result.error
    assert not (tmp_path / "model.safetensors").exists()
    converted(source, target, "--overwrite")
    assert_equal(read_checkpoint(target).tensors, headless(state))


def test_models_that_hugging_face_does_not_support_are_refused(tmp_path):
    variant = Variant(32, (2, 2, 2, 2), (1, 2, 4, 8), (8, 4, 8, 4), (8, 4, 8, 4), 256)
    path = published(native_state(variant), variant, "mmpretrain", tmp_path)
    result = convert(path, tmp_path / "folder", "--to", "huggingface")
    assert "one square window for all stages" in result.error
    assert not (tmp_path / "folder").exists()


def test_models_of_an_unpublished_size_are_converted(tmp_path):
    state = native_state(SMALL)
    path = published(state, SMALL, "simmim", tmp_path)
    converted(path, tmp_path / "x.safetensors", "--check")
    found = read_checkpoint(tmp_path / "x.safetensors")
    assert_equal(found.tensors, headless(state))
    assert found.head == {}
