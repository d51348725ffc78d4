"""One forward, or one forward and backward, of a candidate."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarking.settings import Setting


def runner(model: nn.Module, images: Tensor, setting: Setting) -> Callable[[], object]:
    """What is timed: a call that runs the model on the images once, as the setting says."""
    if setting.training:
        return _training(model, images, setting)
    images = images.to(setting.torch_dtype)
    return lambda: features_of(model, images, setting)


def _training(model: nn.Module, images: Tensor, setting: Setting) -> Callable[[], None]:
    """Forward and backward from a weighted sum of all features; the optimizer has no part in it.

    The weights of the sum are random and fixed, so that real gradients arrive, as from an FPN,
    and not one number seen everywhere.
    """
    gradients: dict[str, Tensor] = {}

    def step() -> None:
        model.zero_grad(set_to_none=True)
        features = features_of(model, images, setting)
        for name in features.keys() - gradients.keys():
            gradients[name] = torch.randn_like(features[name]) / features[name].numel() ** 0.5
        torch.autograd.backward(list(features.values()), [gradients[name] for name in features])

    return step


def features_of(model: nn.Module, images: Tensor, setting: Setting) -> dict[str, Tensor]:
    """The features in the precision of the setting; with a graph in training only."""
    mixed = setting.training and setting.dtype != "float32"
    images = images if setting.training else images.to(setting.torch_dtype)
    with (
        torch.set_grad_enabled(setting.training),
        torch.autocast(setting.device, setting.torch_dtype, enabled=mixed),
    ):
        return model(images)
