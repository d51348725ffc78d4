"""One forward, or one forward and backward, of a candidate."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarking.settings import Setting


def runner(model: nn.Module, images: Tensor, setting: Setting) -> Callable[[], object]:
    """Return the call that is timed: it runs the model on the images once."""
    if setting.training:
        return _training(model, images, setting)
    images = images.to(setting.torch_dtype)
    return lambda: features_of(model, images, setting)


def _training(model: nn.Module, images: Tensor, setting: Setting) -> Callable[[], None]:
    """Return a call of forward, and of backward from a weighted sum of all features.

    The weights of the sum are random and fixed, so that gradients differ between elements, like
    those of an FPN.  There is no optimizer.
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
    """Return the features in the setting's precision; with an autograd graph only in training."""
    mixed = setting.training and setting.dtype != "float32"
    images = images if setting.training else images.to(setting.torch_dtype)
    with (
        torch.set_grad_enabled(setting.training),
        torch.autocast(setting.device, setting.torch_dtype, enabled=mixed),
    ):
        return model(images)
