"""Pre-training without labels (SimMIM) on the pictures that a detector is then trained on."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from experiments.classify import DEPTHS, EMBED_DIM, NUM_HEADS, WINDOW
from swinv2_backbone import SwinV2
from swinv2_backbone.d2.pretraining.masked import find_images
from swinv2_backbone.d2.pretraining.recipe import Recipe
from swinv2_backbone.d2.pretraining.simmim import pretrain

IMAGE_SIZE, MASK_PATCH = 96, 16  # pixels; a mask patch of 32 would hide whole objects


def fill_in(folder: Path, *, seed: int, iterations: int) -> dict:
    """Pre-train; keep the weights and the pictures of the reconstructions."""
    torch.manual_seed(seed)
    backbone = SwinV2(
        EMBED_DIM, DEPTHS, num_heads=NUM_HEADS, window_size=WINDOW, out_features=("res5",)
    )
    recipe = Recipe(
        iterations=iterations,
        batch_size=16,
        image_size=IMAGE_SIZE,
        mask_patch=MASK_PATCH,
        lr=5e-4,
        seed=seed,
        num_workers=0,
        period=iterations,
    )
    images = find_images(folder / "demo" / "train")
    with TemporaryDirectory() as output:
        weights = pretrain(backbone, images, output, recipe, device="cpu")
        shutil.copy(weights, weights_file(folder, seed))
        (picture,) = Path(output, "reconstructions").iterdir()
        shutil.copy(picture, folder / f"simmim_seed{seed}.png")
    return {}


def weights_file(folder: Path, seed: int) -> Path:
    return folder / f"simmim_seed{seed}.pth"
