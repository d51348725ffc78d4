"""Properties for any size, window and precision (R9, R10, R11 of docs/RELIABILITY.md)."""

from __future__ import annotations

from math import ceil

import pytest
import torch
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from models import FEATURES, backbone, pictures
from torch import Tensor

from swinv2_backbone import SwinV2

SHAPE = {"embed_dim": 16, "depths": (2, 2, 1, 1), "num_heads": (1, 2, 4, 8)}
STRIDES = dict(zip(FEATURES, (4, 8, 16, 32)))
QUICK = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
LONG = settings(QUICK, max_examples=1000)


def model(window: int, **options) -> SwinV2:
    return backbone(SHAPE, window_size=window, **options).eval()


def sides(longest: int) -> st.SearchStrategy[int]:
    return st.integers(1, longest)


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the largest difference of a feature, relative to the feature's largest value."""
    return max(
        float((one[name] - other[name]).abs().max() / one[name].abs().max().clamp(min=1))
        for name in one
    )


# ---- R9: shapes


def check_shapes(height: int, width: int, batch: int, window: int) -> float:
    """Check shapes of features; return the difference from the reference in float64."""
    images = pictures(batch, 3, height, width).double()
    with torch.no_grad():
        features = model(window).double()(images)
        reference = model(window, kernel="reference").double()(images)
    assert set(features) == set(FEATURES)
    for name, feature in features.items():
        expected = (ceil(height / STRIDES[name]), ceil(width / STRIDES[name]))
        assert feature.shape[0] == batch and tuple(feature.shape[2:]) == expected, name
        assert feature.isfinite().all(), name
    difference = largest_difference(features, reference)
    assert difference < 1e-11
    return difference


@given(height=sides(160), width=sides(160), batch=st.integers(1, 3), window=st.integers(2, 32))
@example(height=1, width=1, batch=1, window=2)
@example(height=1, width=160, batch=3, window=31)
@QUICK
@pytest.mark.heavy
def test_any_size_and_window_gives_features_of_the_strides(height, width, batch, window):
    check_shapes(height, width, batch, window)


@pytest.mark.reliability
def test_200_sizes_up_to_1500_pixels(record_figures):
    worst = []

    @given(
        height=sides(1500), width=sides(1500), batch=st.integers(1, 3), window=st.integers(2, 32)
    )
    @settings(LONG, max_examples=200)
    def check(height, width, batch, window):
        worst.append(check_shapes(height, width, batch, window))

    check()
    record_figures("R9", f"{len(worst)} shapes, furthest from the reference {max(worst):.1e}")


# ---- R10: padding and the rest of the batch


def check_alone(height: int, width: int, more: tuple[int, int], window: int) -> float:
    """Compare an image alone with the same image padded, in a batch with a larger image."""
    found = model(window)
    image = pictures(1, 3, height, width)
    whole = pictures(2, 3, height + more[0], width + more[1], seed=1)
    whole[0] = 0
    whole[0, :, :height, :width] = image[0]
    sizes = [(height, width), tuple(whole.shape[2:])]
    with torch.no_grad():
        alone = found(image)
        together = found(whole, sizes)
    inside = {
        name: together[name][:1, :, : feature.shape[2], : feature.shape[3]]
        for name, feature in alone.items()
    }
    difference = largest_difference(alone, inside)
    assert difference <= 1e-5
    return difference


MORE = st.tuples(st.integers(0, 70), st.integers(0, 70))


@given(height=sides(120), width=sides(120), more=MORE, window=st.integers(2, 16))
@QUICK
@pytest.mark.heavy
def test_an_image_has_the_same_features_alone_and_padded_beside_another(
    height, width, more, window
):
    check_alone(height, width, more, window)


@pytest.mark.reliability
def test_1000_images_alone_and_padded(record_figures):
    worst = []

    @given(height=sides(300), width=sides(300), more=MORE, window=st.integers(2, 16))
    @LONG
    def check(height, width, more, window):
        worst.append(check_alone(height, width, more, window))

    check()
    record_figures("R10", f"{len(worst)} images, largest difference {max(worst):.1e}")


# ---- R11: numbers

IMAGES = {
    "zeros": lambda *shape: torch.zeros(shape),
    "constant": lambda *shape: torch.full(shape, 1e4),
    "large": lambda *shape: 1e4 * pictures(*shape),
    "tiny": lambda *shape: 1e-6 * pictures(*shape),
}


@given(
    kind=st.sampled_from(sorted(IMAGES)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    logit_scale=st.floats(-1e4, 1e4),
    height=sides(70),
    width=sides(70),
    kernel=st.sampled_from(["tiles", "reference"]),
)
@QUICK
@pytest.mark.heavy
def test_features_and_gradients_are_finite(kind, dtype, logit_scale, height, width, kernel):
    found = model(4, kernel=kernel).train()
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if name.endswith("logit_scale"):
                parameter.fill_(logit_scale)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        features = found(IMAGES[kind](1, 3, height, width))
    assert all(feature.isfinite().all() for feature in features.values())
    sum(feature.float().mean() for feature in features.values()).backward()
    for name, parameter in found.named_parameters():
        assert parameter.grad.isfinite().all(), name
