"""Random weights for which every parameter matters, the same for every candidate."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from benchmarking.settings import Setting
from swinv2_backbone import SwinV2, build_backbone


def random_backbone(setting: Setting) -> SwinV2:
    """Return our model in float32 on the CPU, whose weights all candidates get.

    A new block is the identity, because its norms start at 0; here every parameter matters.
    """
    return _random_backbone(setting.model, setting.window)


@lru_cache(maxsize=1)
@torch.no_grad()
def _random_backbone(name: str, window: int) -> SwinV2:
    model = build_backbone(name, window_size=window)
    generator = torch.Generator().manual_seed(0)
    for key, parameter in model.named_parameters():
        parameter.copy_(_values(key, parameter.shape, generator))
    return model.eval()


def _values(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return values for one parameter by the end of its name."""
    normal = torch.randn(shape, generator=generator)
    if name.endswith("logit_scale"):
        return math.log(10) + 0.3 * normal  # about that of a new model
    if name.endswith("cpb_mlp.2.weight"):  # around 0 before the sigmoid: biases within (0, 16)
        return (normal - normal.mean(dim=1, keepdim=True)) * 4 / math.sqrt(shape[1])
    if len(shape) > 1:
        return normal / math.sqrt(math.prod(shape[1:]))
    return 0.2 * normal + (1 if name.endswith("weight") else 0)  # a norm's weight; any bias


def random_images(setting: Setting) -> Tensor:
    """Return (B, 3, H, W) float32 on the device, the same for the same setting."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(setting.batch, 3, *setting.size, generator=generator)
    return images.to(setting.device)
