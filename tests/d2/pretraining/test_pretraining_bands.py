"""SimMIM pre-training on images of five bands: reading, drawing, resuming, weights of others."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import tifffile
import torch
from scripts import tool
from small_pretraining import RECIPE, SMALL, pretrained, small_backbone, weights, write_images

from swinv2_backbone import SwinV2
from swinv2_backbone.d2.pretraining.masked import MaskedImages, find_images
from swinv2_backbone.d2.pretraining.recipe import Recipe
from swinv2_backbone.d2.pretraining.reconstruction import FixedImages, draw_reconstructions
from swinv2_backbone.d2.pretraining.simmim import Pretraining, PretrainingModel
from swinv2_backbone.variants import VARIANTS

N = 5
MEAN, STD = [1000.0 * (band + 1) for band in range(N)], [100.0 + band for band in range(N)]
BANDS = {"image_format": "BANDS", "pixel_mean": MEAN, "pixel_std": STD}
OPTIONS = ["--image-format", "BANDS", "--pixel-mean", *MEAN, "--pixel-std", *STD]
STEM = "backbone.patch_embed.proj.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Six images of noise, as arrays and TIFF files; a photo among them is none of them."""
    root = tmp_path_factory.mktemp("bands")
    for number in range(6):
        pixels = np.random.default_rng(number).normal(MEAN, STD, (70 + number, 90, N))
        if number % 2:
            np.save(root / f"{number}.npy", pixels.astype(np.uint16))
        else:
            tifffile.imwrite(root / f"{number}.tif", pixels.astype(np.uint16))
    cv2.imwrite(str(root / "photo.png"), np.zeros((70, 90, 3), np.uint8))
    return root


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("trained")
    assert pretrain_by_tool(folder, output, *OPTIONS) == ""
    return output


@pytest.fixture(scope="module")
def of_photos(tmp_path_factory) -> Path:
    images = write_images(tmp_path_factory.mktemp("photos"))
    return pretrained(images, tmp_path_factory.mktemp("rgb"))[1] / "model_final.pth"


def pretrain_by_tool(images: Path, output: Path, *args) -> str:
    """Run the command with a small variant; return its error message, or nothing."""
    fixed = ["--images", images, "--output", output, "--variant", "small", "--image-size", 64]
    fixed += ["--mask-patch", 16, "--batch-size", 2, "--iterations", 4, "--period", 2]
    options = [*fixed, "--device", "cpu", "--num-workers", 0, "--lr", 1e-3, *args]
    with patch.dict(VARIANTS, {"small": SMALL}):
        try:
            tool("pretrain_simmim").main([str(option) for option in options])
        except SystemExit as ended:
            return str(ended)
    return ""


def test_the_tool_trains_on_all_bands_and_resumes_exactly(trained, folder):
    first = weights(trained)
    assert first[STEM].shape[1] == N and first["decoder.0.weight"].shape[0] == N * 32**2
    assert "6, 64 px, 5 bands" in (trained / "log.txt").read_text()
    (trained / "model_final.pth").unlink()
    assert pretrain_by_tool(folder, trained, *OPTIONS, "--resume") == ""
    assert "Starting training from iteration 2" in (trained / "log.txt").read_text()
    assert all(torch.equal(value, first[name]) for name, value in weights(trained).items())


def test_bands_are_cropped_as_they_are_stored_and_normalized(tmp_path):
    np.save(tmp_path / "a.npy", np.tile(np.array(MEAN) + STD, (40, 50, 1)).astype(np.float32))
    record = MaskedImages(64, 16, 0.6, bands=N)({"file_name": str(tmp_path / "a.npy")})
    assert record["image"].shape == (N, 64, 64) and record["image"].dtype == torch.float32
    expected = (torch.tensor(MEAN) + torch.tensor(STD))[:, None, None].expand(N, 64, 64)
    torch.testing.assert_close(record["image"], expected)
    model, seen = PretrainingModel(small_backbone(in_channels=N), MEAN, STD), []
    with patch.object(model, "reconstruct", lambda x, mask: seen.append(x) or x):
        model([record])
    torch.testing.assert_close(seen[0], torch.ones(1, N, 64, 64), rtol=1e-4, atol=1e-4)


def test_files_of_bands_alone_are_found(folder):
    found = [Path(file).name for file in find_images(folder, bands=True)]
    assert found == ["0.tif", "1.npy", "2.tif", "3.npy", "4.tif", "5.npy"]


def test_a_picture_has_the_same_colors_wherever_the_bands_are_the_same(folder, tmp_path):
    fixed = FixedImages(find_images(folder, bands=True), MaskedImages(64, 16, 0.6, N), seed=0)
    model = PretrainingModel(small_backbone(in_channels=N), MEAN, STD)
    draw_reconstructions(model, fixed, model.mean, model.std, tmp_path / "a.png")
    picture = cv2.imread(str(tmp_path / "a.png"))[:, :, ::-1]
    image, seen, filled = (picture[:64, x : x + 64].astype(float) for x in (0, 68, 136))
    hidden = fixed.masks[0].repeat_interleave(4, 0).repeat_interleave(4, 1).numpy()
    assert image.std() > 30
    assert np.array_equal(seen[~hidden], image[~hidden])
    assert np.array_equal(filled[~hidden], image[~hidden])
    assert seen[hidden].std(axis=0).max() == 0  # the mean of each band
    red, stored = image[:, :, 0].ravel(), fixed.images[0, 0].numpy().ravel()
    assert np.corrcoef(red, stored)[0, 1] > 0.98


def test_weights_of_photos_start_it_only_by_a_stated_rule(of_photos, folder, tmp_path):
    args = [*OPTIONS, "--init", of_photos, "--iterations", 1, "--lr", 1e-9]
    error = pretrain_by_tool(folder, tmp_path / "a", *args)
    assert "of 3 channels or bands, the model is for 5" in error and "--stem" in error
    assert pretrain_by_tool(folder, tmp_path / "b", *args, "--stem", "zero") == ""
    found = weights(tmp_path / "b")[STEM]
    photos = torch.load(of_photos, weights_only=True)["model"][STEM]
    torch.testing.assert_close(found[:, :3], photos, rtol=0, atol=1e-6)
    assert found[:, 3:].abs().max() < 1e-6
    assert "from 3 to 5 channels by the rule 'zero'" in (tmp_path / "b" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--image-format", "BANDS"], "needs --pixel-mean and --pixel-std, one number for each"),
        ([*OPTIONS, "--pixel-std", 1, 2], "one number for each, got 5 and 2"),
        (["--pixel-mean", 1, 2], "takes 3 channels or bands: .* got 2 and None"),
        ([*OPTIONS, "--pixel-std", 0, 1, 1, 1, 1], "pixel_std must be above 0"),
    ],
)
def test_contradictions_are_reported_before_work_starts(args, words, folder, tmp_path):
    error = pretrain_by_tool(folder, tmp_path / "run", *args)
    assert re.search(words, error), error
    assert not list((tmp_path / "run").glob("*.pth"))


def test_a_run_is_not_resumed_with_another_normalization(trained, folder):
    other = [*OPTIONS[:-1], 7.0]
    assert "the run to resume has pixel_std" in pretrain_by_tool(
        folder, trained, *other, "--resume"
    )


def test_a_run_that_was_saved_before_there_were_bands_is_resumed():
    before = RECIPE.state_dict()
    for key in ("image_format", "pixel_mean", "pixel_std"):
        del before[key]
    RECIPE.load_state_dict(before)
    with pytest.raises(ValueError, match="image_format RGB, not BANDS"):
        dataclasses.replace(RECIPE, **BANDS).load_state_dict(before)


def test_a_backbone_of_other_bands_is_refused(folder, tmp_path):
    recipe = Recipe(iterations=1, batch_size=1, image_size=64, mask_patch=16, **BANDS)
    backbone: SwinV2 = small_backbone()
    with pytest.raises(
        ValueError, match="takes 3 channels .* 5 numbers: build it with in_channels=5"
    ):
        Pretraining(backbone, find_images(folder, bands=True), tmp_path, recipe, device="cpu")
