"""Small backbones with random weights, images, and the oracle's features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from oracle import randomize, reference_features
from torch import Tensor, nn

from swinv2_backbone import SwinV2
from swinv2_backbone.packing import Size

FEATURES = ("res2", "res3", "res4", "res5")

TWO_STAGES = {
    "embed_dim": 16,
    "depths": (2, 2),
    "num_heads": (2, 4),
    "window_size": 4,
    "out_features": ("res2", "res3"),
}
FOUR_STAGES = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (2, 2, 4, 8), "window_size": 4}


def backbone(shape: dict = TWO_STAGES, **options) -> SwinV2:
    """Build a small model in float32; every parameter, norms included, is random."""
    return randomize(SwinV2(**(shape | options)), seed=0)


def pictures(*shape: int, seed: int = 0) -> Tensor:
    """Draw standard normal numbers, the same for the same shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def counted(rows: int, columns: int) -> Tensor:
    """Return (rows, columns) of 1, 2, 3, ...: no two entries are equal, and none is zero."""
    return torch.arange(1.0, rows * columns + 1, dtype=torch.float64).view(rows, columns)


def oracle_features(
    model: SwinV2,
    images: Tensor,
    *,
    window_sizes: Sequence,
    pretrained_window_sizes: Sequence | None = None,
    image_sizes: Sequence[Size] | None = None,
    extra_norm_every: int = 0,
    square_small_maps: bool = False,
) -> dict[str, Tensor]:
    """Return the oracle's features for the weights of ``model``, in float64.

    The windows are given again rather than read from the model, which might have them wrong.
    """
    return reference_features(
        model.state_dict(),
        images,
        depths=[len(stage.blocks) for stage in model.layers],
        window_sizes=window_sizes,
        pretrained_window_sizes=pretrained_window_sizes or window_sizes,
        image_sizes=image_sizes,
        extra_norm_every=extra_norm_every,
        square_small_maps=square_small_maps,
    )


def padded(images: Sequence[Tensor], height: int, width: int) -> Tensor:
    """(C, h, w) each -> (B, C, height, width), zeros at the bottom and right."""
    batch = images[0].new_zeros(len(images), len(images[0]), height, width)
    for one, image in zip(batch, images, strict=True):
        one[:, : image.shape[1], : image.shape[2]] = image
    return batch


def total(features: dict[str, Tensor]) -> Tensor:
    """Sum all features with different weights, to have one number to differentiate."""
    return sum(
        (value.double() * pictures(*value.shape, seed=1)).mean() for value in features.values()
    )


def gradients(module: nn.Module) -> dict[str, Tensor | None]:
    """Copy the gradient of every parameter, by name."""
    return {
        name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()
    }


def largest_difference(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return max |actual - expected| over all features, relative to the largest one expected."""
    return max(differences(actual, expected).values())


def differences(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Return the same for each feature; infinity for NaN."""
    assert actual.keys() == expected.keys()
    found = {}
    for name, value in expected.items():
        assert actual[name].shape == value.shape, name
        off = (actual[name].double() - value.double()).abs().max().item()
        largest = value.abs().max().item()
        found[name] = off / (largest or math.ulp(0)) if off else 0.0
        if math.isnan(found[name]):  # which no comparison notices
            found[name] = math.inf
    return found
