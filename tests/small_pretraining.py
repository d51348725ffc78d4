"""A small SimMIM pre-training that can be broken off, as several tests use it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from swinv2_backbone import SwinV2, Variant
from swinv2_backbone.checkpoints.files import read_file
from swinv2_backbone.d2.pretraining.masked import find_images
from swinv2_backbone.d2.pretraining.recipe import Recipe
from swinv2_backbone.d2.pretraining.simmim import Pretraining, pretrain

SMALL = Variant(16, (1, 2, 1, 1), (1, 2, 4, 8), (4, 4, 4, 2), (4, 4, 4, 2), 64)
RECIPE = Recipe(
    iterations=7, batch_size=4, image_size=64, mask_patch=16, num_workers=0, period=3, lr=1e-3
)
FOREVER = 1_000_000


def write_images(root: Path) -> Path:
    """Write ten images of two colors each into subfolders of ``root``."""
    for number in range(10):
        rng = np.random.default_rng(number)
        picture = np.empty((50 + 9 * number, 90, 3), np.uint8)
        picture[:] = rng.integers(0, 256, 3)
        picture[20:60, 30:70] = rng.integers(0, 256, 3)
        path = root / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), picture)
    return root


def small_backbone(**options) -> SwinV2:
    return SwinV2(
        SMALL.embed_dim,
        SMALL.depths,
        num_heads=SMALL.num_heads,
        window_size=SMALL.window_sizes,
        **{"out_features": ("res5",), "drop_path_rate": 0.2} | options,
    )


class Recorder(HookBase):
    """The losses of the main process."""

    def __init__(self):
        self.losses: dict[int, float] = {}

    def after_step(self) -> None:
        self.losses[self.trainer.iter] = self.trainer.storage.latest()["total_loss"][0]


class BrokenOffError(Exception):
    pass


class BreakOff(HookBase):
    def __init__(self, iteration: int):
        self.iteration = iteration

    def before_step(self) -> None:
        if self.trainer.iter == self.iteration:
            raise BrokenOffError


def train(
    images: Path, output: Path, recipe: Recipe = RECIPE, resume: bool = False, stop: int = -1
) -> dict[int, float]:
    """Iteration -> loss; ``stop``: before which to break off, as if the process were killed."""
    torch.set_num_threads(1)
    torch.manual_seed(comm.get_rank() + 10 * resume)  # what is resumed has its own generators
    run = Pretraining(
        small_backbone(), find_images(images), output, recipe, resume=resume, device="cpu"
    )
    recorder = Recorder()
    run.step.register_hooks(([recorder] if comm.is_main_process() else []) + [BreakOff(stop)])
    try:
        run.train()
    except BrokenOffError:
        assert stop >= 0
    return recorder.losses


def weights(output: Path) -> dict[str, torch.Tensor]:
    return read_file(output / "model_final.pth", extras=False).value["model"]


def pretrained(images: Path, output: Path) -> tuple[SwinV2, Path]:
    """Pre-train a small backbone by ``RECIPE``; return it with the folder of the results."""
    torch.manual_seed(0)
    backbone = small_backbone()
    assert pretrain(backbone, find_images(images), output, RECIPE, device="cpu") == (
        output / "model_final.pth"
    )
    return backbone, output
