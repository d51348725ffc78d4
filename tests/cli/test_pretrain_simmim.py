"""tools/pretrain_simmim.py: it trains, resumes, starts from weights, and names wrong options."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from scripts import ROOT, tool
from small_pretraining import SMALL, pretrained, weights, write_images

from swinv2_backbone import SwinV2, build_backbone, load_checkpoint
from swinv2_backbone.checkpoints.files import read_file
from swinv2_backbone.variants import VARIANTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory) -> tuple[SwinV2, Path]:
    return pretrained(folder, tmp_path_factory.mktemp("trained"))


def pretrain_by_tool(*args) -> str:
    """Run the command with a small variant; return its error message, or nothing."""
    script = tool("pretrain_simmim")
    options = ["--device", "cpu", "--num-workers", "0", *map(str, args)]
    if "--depths" not in options and "--variant" not in options:
        options += ["--variant", "small"]
    with patch.dict(VARIANTS, {"small": SMALL}):
        try:
            script.main(options)
        except SystemExit as ended:
            return str(ended)
    return ""


def test_the_tool_trains_and_resumes(folder, tmp_path):
    args = ["--images", folder, "--output", tmp_path, "--batch-size", 4, "--image-size", 64]
    args += ["--mask-patch", 16, "--epochs", 1.5, "--period", 2, "--amp-dtype", "bfloat16"]
    assert pretrain_by_tool(*args) == ""
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    assert recipe["iterations"] == 4  # ceil(1.5 * 10 images / 4)
    assert recipe["amp_dtype"] == "bfloat16"
    first = weights(tmp_path)
    (tmp_path / "model_final.pth").unlink()
    assert pretrain_by_tool(*args, "--resume") == ""
    assert "Starting training from iteration 2" in (tmp_path / "log.txt").read_text()
    assert all(torch.equal(value, first[name]) for name, value in weights(tmp_path).items())


def test_the_tool_starts_from_weights_and_keeps_their_pretrained_windows(folder, tmp_path, trained):
    args = ["--images", folder, "--output", tmp_path, "--batch-size", 2, "--image-size", 64]
    args += ["--iterations", 1, "--lr", 1e-9, "--window-size", 8, "--mask-patch", 16]
    assert pretrain_by_tool(*args, "--init", trained[1] / "model_final.pth") == ""
    content = read_file(tmp_path / "model_final.pth", extras=False)
    # Windows are no larger than the maps, of 16, 8, 4 and 2 tokens.
    assert content.metadata["window_sizes"] == [[8, 8], [8, 8], [4, 4], [2, 2]]
    assert content.metadata["pretrained_window_sizes"] == [[4, 4], [4, 4], [4, 4], [2, 2]]
    before = weights(trained[1])
    for name, value in content.value["model"].items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-6)


def test_a_variant_keeps_its_pretrained_windows(folder, tmp_path):
    """At 64 px the last map is smaller than its window."""
    named = dataclasses.replace(SMALL, window_sizes=(4,) * 4, pretrained_window_sizes=(4,) * 4)
    args = ["--images", folder, "--output", tmp_path, "--batch-size", 2, "--image-size", 64]
    with patch.dict(VARIANTS, {"named": named}):
        assert pretrain_by_tool(*args, "--variant", "named", "--iterations", 1) == ""
        assert pretrain_by_tool(*args, "--variant", "named", "--iterations", 1, "--resume") == ""
        backbone = build_backbone("named", weights=tmp_path / "model_final.pth")
    assert backbone.pretrained_window_sizes == ((4, 4),) * 4
    notes = read_file(tmp_path / "model_final.pth").metadata
    assert notes["window_sizes"] == [[4, 4], [4, 4], [4, 4], [2, 2]]


def test_the_tool_trains_an_unpublished_size(folder, tmp_path):
    args = ["--images", folder, "--output", tmp_path, "--batch-size", 2, "--image-size", 64]
    args += ["--embed-dim", 8, "--depths", 1, 1, 1, "--num-heads", 1, 2, 2, "--window-size", 4]
    assert pretrain_by_tool(*args, "--iterations", 1) == ""
    outputs = ("res2", "res3", "res4")
    backbone = SwinV2(8, (1, 1, 1), num_heads=(1, 2, 2), window_size=4, out_features=outputs)
    report = load_checkpoint(backbone, tmp_path / "model_final.pth")
    assert report.missing == [] and "norms.res4.weight" in report.used


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--images", "nowhere"], "no folder 'nowhere' with images"),
        (["--images", "{empty}"], "has no images, not even in subfolders"),
        (["--image-size", 100], "multiple of the mask patch 32, got 100: take 128"),
        (["--variant", "swinv3"], "unknown variant 'swinv3'; there are: "),
        (["--init", "nowhere.pth"], "no file 'nowhere.pth'"),
        (["--variant", "small", "--depths", 1], "--variant small fixes --depths: give either"),
        (["--depths", 1, "--embed-dim", 8], "a custom size by all of --embed-dim, --depths,"),
        (["--window-size", 4, 4], "--window-size must be one number or one per stage"),
        (["--batch-size", 0], "batch_size must be 1 or more, got 0"),
    ],
)
def test_an_error_of_the_user_is_reported_before_work_starts(args, words, folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    given = ["--images", folder, "--output", tmp_path / "run", "--epochs", 1]
    args = [str(arg).format(empty=empty) for arg in args]
    assert words in pretrain_by_tool(*given, *args)
    assert not list((tmp_path / "run").glob("*.pth"))


@pytest.mark.slow
def test_the_tool_starts_two_processes(folder, tmp_path):
    line = [sys.executable, str(ROOT / "tools" / "pretrain_simmim.py"), "--num-gpus", "2"]
    line += ["--images", str(folder), "--output", str(tmp_path), "--iterations", "2"]
    line += ["--batch-size", "2", "--image-size", "64", "--num-workers", "1", "--device", "cpu"]
    line += ["--variant", "swinv2_tiny_window8_256"]
    result = subprocess.run(
        line,
        capture_output=True,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    backbone = tool("pretrain_simmim").build_backbone(
        tool("pretrain_simmim").parser().parse_args(line[4:])
    )
    assert load_checkpoint(backbone, tmp_path / "model_final.pth").complete
