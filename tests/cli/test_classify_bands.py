"""tools/classify.py and tools/export_model.py --model on images of four bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import torch.nn.functional as F
from oracle import randomize
from scripts import tool

from swinv2_backbone import VARIANTS, SwinV2Classifier, Variant, build_classifier, save_checkpoint

SMALL = Variant(16, (1,) * 4, (1, 2, 4, 8), (4,) * 4, (4,) * 4, 32)
N, MEAN, STD = 4, [900.0, 700.0, 500.0, 100.0], [300.0, 200.0, 100.0, 50.0]
NUMBERS = ["--pixel-mean", *MEAN, "--pixel-std", *STD]
OPTIONS = ["--image-format", "BANDS", *NUMBERS]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(VARIANTS, "small", SMALL)


@pytest.fixture
def run(capsys):
    def run(name: str, *args) -> str:
        tool(name).main([str(arg) for arg in ("--model", "small", *args)])
        return capsys.readouterr().out

    return run


def model_of(channels: int) -> SwinV2Classifier:
    model = build_classifier("small", num_classes=6, in_channels=channels)
    return randomize(model, seed=0).eval()


def weights(channels: int, folder: Path) -> Path:
    path = folder / f"of_{channels}.safetensors"
    save_checkpoint(model_of(channels), path)
    return path


def scene(seed: int) -> np.ndarray:
    """(32, 32, N) uint16, of 4 x 4 blocks, so that it is a square of the model's size."""
    pixels = np.random.default_rng(seed).normal(MEAN, STD, (8, 8, N)).clip(0).astype(np.uint16)
    return pixels.repeat(4, 0).repeat(4, 1)


@torch.no_grad()
def probabilities(model: SwinV2Classifier, pixels: np.ndarray, mean=MEAN, std=STD) -> list[float]:
    """Return them for the central 32 pixels of the image resized to 36."""
    images = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    images = F.interpolate(images, (36, 36), mode="bicubic", antialias=True)[:, :, 2:34, 2:34]
    mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (mean, std))
    return model((images - mean) / std).softmax(dim=1)[0].tolist()


def printed(text: str) -> dict[int, float]:
    """Class -> probability."""
    rows = [line.split() for line in text.splitlines() if line.startswith("  ")]
    return {int(row[2]): float(row[0]) for row in rows}


def test_bands_are_classified_as_they_are_stored(run, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", scene(0))
    np.save(tmp_path / "b.npy", np.moveaxis(scene(0), 2, 0))
    path = weights(N, tmp_path)
    for name in ("a.tif", "b.npy"):
        text = run("classify", tmp_path / name, "--weights", path, *OPTIONS)
        expected = probabilities(model_of(N), scene(0))
        assert len(printed(text)) == 5
        for index, found in printed(text).items():
            assert found == pytest.approx(expected[index], abs=1e-3)


def test_accuracy_is_of_the_files_of_bands(run, tmp_path):
    model, answers = model_of(N), {}
    for seed in range(6):
        answers[seed] = int(np.argmax(probabilities(model, scene(seed))))
        for label in range(6):
            (tmp_path / "val" / f"n{label}").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "val" / f"n{seed}" / "a.npy", scene(seed))
        (tmp_path / "val" / f"n{seed}" / "a.png").write_bytes(b"a picture of it")
    text = run(
        *("classify", "--weights", weights(N, tmp_path), *OPTIONS, "--workers", 0),
        *("--imagefolder", tmp_path / "val"),
    )
    right = sum(seed == answer for seed, answer in answers.items())
    assert f"top-1 {100 * right / 6:.2f} %" in text and "of 6 images" in text


def test_weights_of_photos_classify_gray_images_by_a_stated_rule(run, tmp_path):
    gray = scene(1)[:, :, :1]
    np.save(tmp_path / "gray.npy", gray)
    args = ["classify", tmp_path / "gray.npy", "--weights", weights(3, tmp_path)]
    args += ["--image-format", "BANDS", "--pixel-mean", 900, "--pixel-std", 300]
    with pytest.raises(SystemExit, match="of 3 channels or bands, the model is for 1 .*--stem"):
        run(*args)
    found = printed(run(*args, "--stem", "repeat"))
    expected = probabilities(model_of(3), gray.repeat(3, 2), [900.0] * 3, [300.0] * 3)
    for index, value in found.items():
        assert value == pytest.approx(expected[index], abs=1e-3)


def test_bad_input_of_bands_is_named(run, tmp_path):
    np.save(tmp_path / "two.npy", scene(0)[:, :, :2])
    path = weights(N, tmp_path)
    with pytest.raises(SystemExit, match="the model is for 3 .*--pixel-mean"):
        run("classify", "--weights", path, tmp_path / "two.npy")
    with pytest.raises(SystemExit, match="needs --pixel-mean and --pixel-std"):
        run("classify", "--weights", path, "--image-format", "BANDS", tmp_path / "two.npy")
    with pytest.raises(SystemExit, match=r"two.npy cannot be read .* shape \(32, 32, 2\)"):
        run("classify", tmp_path / "two.npy", "--weights", path, *OPTIONS)


@pytest.mark.slow
def test_a_model_of_bands_is_exported_by_its_name(run, tmp_path):
    args = ["export_model", "--weights", weights(N, tmp_path), "--what", "classifier"]
    args += ["--format", "torch-export", "--output", tmp_path / "x.pt2"]
    with pytest.raises(SystemExit, match="of 4 channels or bands, the model is for 3"):
        run(*args)
    notes = run(*args, *OPTIONS)  # which compares the file with the model
    assert "(batch, 4, height, width), BANDS, as they are stored" in notes
    assert "[900.0, 700.0, 500.0, 100.0]" in notes
    graph = torch.export.load(tmp_path / "x.pt2").module()
    found = graph(torch.from_numpy(scene(0).astype(np.float32)).permute(2, 0, 1)[None])
    images = (scene(0) - np.array(MEAN)) / STD
    expected = model_of(N)(torch.from_numpy(images.astype(np.float32)).permute(2, 0, 1)[None])
    assert (found["logits"] - expected).abs().max() < 1e-4


def test_the_options_of_bands_are_not_for_a_config(tmp_path):
    args = ["--config-file", "configs/mask_rcnn_swinv2.yaml", "--what", "backbone", "--format"]
    args += ["onnx", "--output", str(tmp_path / "x.onnx"), "--pixel-mean", "1"]
    with pytest.raises(SystemExit, match="go with --model: a config has INPUT.FORMAT"):
        tool("export_model").main(args)
