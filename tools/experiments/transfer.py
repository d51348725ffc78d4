"""The transfer of a bias that was learned at window 8 to larger windows (paper, table 1)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from experiments.classify import WINDOW, accuracy, classifier, train
from swinv2_backbone import SwinV2Classifier
from swinv2_backbone.checkpoints.files import read_file, write_file


def pretrain(
    folder: Path, *, bias: str, seed: int, images: int, steps: int, windows: list[int], test: int
) -> dict:
    """Train at window 8; return the accuracy at each window, without training there."""
    torch.manual_seed(seed)
    model = classifier(bias)
    losses = train(model, WINDOW, images=images, steps=steps, lr=1e-3, seed=seed)
    write_file(weights_file(folder, bias, seed), model.state_dict(), {}, overwrite=True)
    found = {}
    for window in windows:
        model.backbone.set_window_size(window)
        found[f"w{window}"] = accuracy(model, window, test)
    return found | {"loss": sum(losses[-20:]) / 20}


def tune(
    folder: Path, *, bias: str, seed: int, window: int, images: int, steps: int, test: int
) -> dict:
    """Train a pre-trained classifier for a short time at another window."""
    torch.manual_seed(seed)
    model = pretrained(folder, bias, seed)
    model.backbone.set_window_size(window)
    train(model, window, images=images, steps=steps, lr=2e-4, seed=seed + 1000, batch=16)
    return {"accuracy": accuracy(model, window, test)}


def pretrained(folder: Path, bias: str, seed: int) -> SwinV2Classifier:
    model = classifier(bias)
    model.load_state_dict(read_file(weights_file(folder, bias, seed), extras=False).value)
    return model


def pretrained_backbone(folder: Path, bias: str, seed: int) -> dict[str, Tensor]:
    return pretrained(folder, bias, seed).backbone.state_dict()


def weights_file(folder: Path, bias: str, seed: int) -> Path:
    return folder / f"classifier_{bias}_{seed}.pth"
