"""Precision: all results are finite and close to those in float64."""

from __future__ import annotations

from math import log

import pytest
import torch
from models import FOUR_STAGES, backbone, pictures, total
from torch import Tensor, nn

from swinv2_backbone import SwinV2
from swinv2_backbone.packing import Size

MODES = [
    (torch.float32, False),
    (torch.bfloat16, False),
    (torch.float16, False),
    (torch.bfloat16, True),
    (torch.float16, True),
]  # dtype, and whether by autocast or by .to(dtype)
SIZES = [64, 72]  # with windows of 8: maps of 16, 8, 4, 2 (no padding) and of 18, 9, 5, 3 (padding)
LOSS_SCALE = 2.0**10

# Root mean square error of a feature, relative to its root mean square.  Measured: 1.5e-6, 2.9e-2
# and 3.8e-3, with and without autocast: 12, 4 and 4 units of the dtype's precision.
DRIFT = {torch.float32: 5e-6, torch.bfloat16: 6e-2, torch.float16: 8e-3}


def model_of_scale(logit_scale: float | None) -> SwinV2:
    """Build a model with random weights.

    The biases of q and v are 0, as in a new model, so queries and keys of empty slots are exactly
    zero.  None: scales from 5 to 100, above which they are clamped.
    """
    model = backbone(FOUR_STAGES, window_size=8)
    for stage in model.layers:
        for block in stage.blocks:
            nn.init.zeros_(block.attn.q_bias)
            nn.init.zeros_(block.attn.v_bias)
            if logit_scale is not None:
                nn.init.constant_(block.attn.logit_scale, log(logit_scale))
    return model


def run(
    model: SwinV2,
    images: Tensor,
    dtype: torch.dtype,
    autocast: bool,
    image_sizes: list[Size] | None = None,
) -> dict[str, Tensor]:
    if autocast:
        with torch.autocast("cpu", dtype=dtype):
            return model(images, image_sizes)
    return model.to(dtype)(images.to(dtype), image_sizes)


IMAGES = {
    "normal": lambda size: pictures(2, 3, size, size),
    "zeros": lambda size: torch.zeros(2, 3, size, size),
    "constant": lambda size: torch.full((2, 3, size, size), 1.7),
    "large": lambda size: 1e3 * pictures(2, 3, size, size),
    "tiny": lambda size: 1e-6 * pictures(2, 3, size, size),
}


@pytest.mark.parametrize("logit_scale", [10, None])
@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype, autocast", MODES)
@pytest.mark.heavy
def test_features_and_all_gradients_are_finite(dtype, autocast, size, images, logit_scale):
    model = model_of_scale(logit_scale)
    features = run(model, IMAGES[images](size), dtype, autocast)
    for name, feature in features.items():
        assert feature.dtype == dtype, name
        assert feature.isfinite().all(), name
    (LOSS_SCALE * total(features)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("dtype, autocast", MODES)
def test_a_padded_batch_is_finite_in_every_precision(dtype, autocast):
    model = model_of_scale(10)
    features = run(model, pictures(2, 3, 72, 56), dtype, autocast, [(72, 9), (33, 56)])
    (LOSS_SCALE * total(features)).backward()
    assert all(feature.isfinite().all() for feature in features.values())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype, autocast", MODES)
def test_features_drift_little_from_float64(dtype, autocast, size):
    images = pictures(2, 3, size, size)
    with torch.no_grad():
        expected = model_of_scale(10).double()(images.double())
        actual = run(model_of_scale(10), images, dtype, autocast)
    for name, feature in expected.items():
        error = (actual[name].double() - feature).square().mean() / feature.square().mean()
        assert error.sqrt() < DRIFT[dtype], name
