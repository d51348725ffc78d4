"""The images of a SimMIM pre-training, and its options."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from unittest.mock import patch

import cv2
import pytest
import torch
from processes import together
from small_pretraining import RECIPE, small_backbone, train, write_images

from swinv2_backbone.d2.data.loading.draws import BrokenImagesError
from swinv2_backbone.d2.pretraining.masked import MaskedImages, find_images
from swinv2_backbone.d2.pretraining.recipe import Recipe
from swinv2_backbone.d2.pretraining.reconstruction import FixedImages
from swinv2_backbone.d2.pretraining.simmim import PretrainingModel
from swinv2_backbone.d2.solver.optimizer import parameter_groups


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


def test_images_are_found_in_all_folders_whatever_their_case(folder, tmp_path, caplog):
    caplog.set_level("INFO", "swinv2_backbone")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere").symlink_to(folder / "0")
    for name in ("z.JPG", "a/b/c.png", "a/notes.txt", "a/._hidden.png"):
        (tmp_path / name).touch()
    found = [str(Path(file).relative_to(tmp_path)) for file in find_images(tmp_path)]
    assert found == ["a/b/c.png", *(f"elsewhere/{n}.png" for n in (0, 2, 4, 6, 8)), "z.JPG"]
    assert "files of .txt: notes.txt" in caplog.text


def test_an_image_becomes_a_square_with_a_mask(folder):
    torch.manual_seed(3)
    mapped = MaskedImages(64, 16, 0.6)({"file_name": find_images(folder)[0]})
    assert mapped["image"].shape == (3, 64, 64) and mapped["image"].dtype == torch.uint8
    assert mapped["mask"].shape == (16, 16) and mapped["mask"].sum() == 10 * 16


def test_colors_are_red_green_blue_and_normalized(folder):
    images = MaskedImages(64, 16, 0.6)
    record = images({"file_name": find_images(folder)[0]})
    record["image"][:] = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    model = PretrainingModel(small_backbone())
    seen = []
    with patch.object(model, "reconstruct", lambda x, mask: seen.append(x) or x):
        assert model([record])["loss_l1"] == 0
    expected = [(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375]
    assert seen[0][0, :, 5, 5].tolist() == pytest.approx(expected)
    blue = cv2.imread(record["file_name"])[0, 0, 0]
    assert FixedImages([record["file_name"]], images, 0).images[0, 2, 0, 0] == blue


def with_broken(folder: Path, target: Path, broken: int) -> Path:
    """The pictures of a folder, of which the first are cut short."""
    target.mkdir()
    for number, file in enumerate(find_images(folder)):
        content = Path(file).read_bytes()
        (target / Path(file).name).write_bytes(content[:60] if number < broken else content)
    return target


def test_broken_images_are_skipped_and_named(folder, tmp_path):
    images = with_broken(folder, tmp_path / "images", 1)
    train(images, tmp_path / "run", dataclasses.replace(RECIPE, max_broken=0.1))
    (line,) = (tmp_path / "run" / "broken_images.txt").read_text().splitlines()
    assert "0.png is damaged" in line
    with pytest.raises(BrokenImagesError, match="1 of 10 images cannot be read, 0 may .*\n.*0.png"):
        train(images, tmp_path / "run", dataclasses.replace(RECIPE, max_broken=0.0))


def test_a_folder_of_broken_images_is_refused_before_training(folder, tmp_path):
    images = with_broken(folder, tmp_path / "images", 10)
    with pytest.raises(ValueError, match="none of the 10 images can be read; the first: .*0.png"):
        train(images, tmp_path / "run")


def test_the_learning_rate_rises_then_follows_a_cosine():
    schedule = Recipe(iterations=100, batch_size=64).schedule()
    assert schedule(0.0) == pytest.approx(0.005)
    assert schedule(0.05) == pytest.approx((0.005 + schedule(0.1)) / 2, rel=1e-3)
    assert schedule(0.5) == pytest.approx(0.525)
    assert schedule(1.0) == pytest.approx(0.05)


def test_the_learning_rate_is_the_papers_in_proportion_to_the_batch():
    assert Recipe(iterations=10, batch_size=2048).highest_lr == pytest.approx(8e-4)
    assert Recipe(iterations=10, batch_size=512).highest_lr == pytest.approx(2e-4)
    assert Recipe(iterations=10, batch_size=512, lr=0.1).highest_lr == 0.1


def test_the_mask_token_does_not_decay_but_the_decoder_does():
    groups = parameter_groups(PretrainingModel(small_backbone()), lr=1.0, weight_decay=0.05)
    decay = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert decay["mask_token"] == decay["decoder.0.bias"] == 0
    assert decay["decoder.0.weight"] == decay["backbone.patch_embed.proj.weight"] == 0.05


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"image_size": 72}, "image size must be a multiple of the mask patch 16, got 72"),
        ({"image_size": 48}, "multiple of the backbone's stride 32, got 48"),
        ({"iterations": 0}, "iterations must be 1 or more, got 0"),
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"num_workers": -1}, "num_workers must be 0 or more, got -1"),
        ({"lr": 0.0}, "lr must be more than 0, got 0.0"),
        ({"warmup": 7}, "less than the 7 iterations, got 7"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more, got -1.0"),
        ({"amp_dtype": "half"}, "one of bfloat16, float16, got 'half'"),
        ({"amp_dtype": "float16"}, "use bfloat16 on the CPU"),
        ({"max_broken": 1.5}, "max_broken must be in"),
        ({"max_nonfinite_steps": -1}, "max_nonfinite_steps must be 0 or more, got -1"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused(wrong, words, folder, tmp_path):
    with pytest.raises(ValueError, match=words):
        train(folder, tmp_path, dataclasses.replace(RECIPE, **wrong))


def three_images(folder: Path, output: Path) -> str:
    with pytest.raises(ValueError) as refused:
        train(folder, output, dataclasses.replace(RECIPE, batch_size=3))
    return str(refused.value)


def test_processes_need_equally_many_images(folder, tmp_path):
    words, _ = together(2, three_images, folder, tmp_path / "run", folder=tmp_path / "logs")
    assert "the 2 processes must have equally many images of a step, got a batch size of 3" in words
