"""The same random weights in ours and in timm, Hugging Face transformers and torchvision.

At the image size of each variant nothing is padded, so the peers' attention is correct.

Ours in float32 agrees with the peers in float64 to 1e-5 if attention is about as sharp as in a new
model.  With the largest logits (up to 100 + 16), float32 differs from float64 by 2e-4, in the peers
as in ours; such weights are compared in float64, to 1e-10.
"""

import copy
from functools import lru_cache
from typing import NamedTuple

import pytest
import torch
from oracle import randomize
from peers import PEERS, in_float64
from torch import Tensor, nn

from swinv2_backbone import VARIANTS, SwinV2, Variant, build_backbone

FAST = (
    "swinv2_tiny_window8_256",
    "swinv2_base_window12to16_192to256",  # not its pretrained windows
)
LONG = ("swinv2_base_window12to16_192to256", "timm")
FAST_IN_FLOAT64 = ("swinv2_tiny_window8_256",)


def peers_of(variant: Variant) -> list[str]:
    """List the peers that have this variant."""
    if variant.extra_norm_every:
        return []  # no peer has the extra norms of SwinV2-H and -G
    if len(set(variant.window_sizes + variant.pretrained_window_sizes)) > 1:
        # torchvision has one window for all stages, pads small maps to it, and normalizes the bias
        # by it, whatever window the weights were trained with.
        return ["timm", "hugging_face"]
    return ["timm", "hugging_face", "torchvision"]


def cases(fast: tuple[str, ...]) -> list:
    """List every (variant, peer); all but the fast ones are marked slow."""

    def is_fast(name: str, peer: str) -> bool:
        return name in fast and (name, peer) != LONG

    return [
        pytest.param(name, peer, marks=() if is_fast(name, peer) else pytest.mark.slow)
        for name, variant in VARIANTS.items()
        for peer in peers_of(variant)
    ]


class Run(NamedTuple):
    """Our model, some images and their features."""

    model: SwinV2
    images: Tensor
    features: dict[str, Tensor]


@lru_cache(maxsize=1)  # the peers of a variant are compared one after the other
@torch.no_grad()
def run(name: str, size: tuple[int, int], dtype: torch.dtype, batch: int = 1) -> Run:
    """Run ours on random images with random weights; in float64 with the sharpest attention."""
    model = randomize(build_backbone(name), seed=0).eval().to(dtype)
    if dtype == torch.float32:
        for key, parameter in model.named_parameters():
            if key.endswith("logit_scale"):
                parameter.div_(2)  # exp from 2 to 14 instead of 5 to 200; a new model has 10
    images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1)).to(dtype)
    return Run(model, images, model(images))


@torch.no_grad()
def differences(ours: Run, peer: str, name: str) -> dict[str, float]:
    """Return the largest absolute difference of every feature between ours and a peer's in float64.

    Like checkpoints, the peers have no output norms for res2 to res4, so ours are applied to the
    outputs of their stages here.  The norm of res5 is their own final norm.
    """
    model = PEERS[peer].model(ours.model.state_dict(), name, tuple(ours.images.shape[-2:]))
    stages, last = PEERS[peer].features(in_float64(model), ours.images.double())
    norms = copy.deepcopy(ours.model.norms).double().values()
    theirs = [normed(maps, norm) for maps, norm in zip(stages, norms, strict=True)][:3] + [last]
    found = {}
    for (feature, mine), their in zip(ours.features.items(), theirs, strict=True):
        assert mine.shape == their.shape
        found[feature] = (mine - their).abs().max().item()
    return found


def normed(maps: Tensor, norm: nn.Module) -> Tensor:
    """Apply a LayerNorm to the channels of (B, C, h, w)."""
    return norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("name", "peer"), cases(FAST))
@pytest.mark.heavy
def test_features_agree_in_float32(name: str, peer: str) -> None:
    size = (VARIANTS[name].image_size,) * 2
    found = differences(run(name, size, torch.float32), peer, name)
    assert all(value <= 1e-5 for value in found.values()), found


@pytest.mark.parametrize(("name", "peer"), cases(FAST_IN_FLOAT64))
@pytest.mark.heavy
def test_features_agree_in_float64_with_the_sharpest_attention(name: str, peer: str) -> None:
    size = (VARIANTS[name].image_size,) * 2
    found = differences(run(name, size, torch.float64), peer, name)
    assert all(value <= 1e-10 for value in found.values()), found


# Not Hugging Face, which decides the shift of both axes by the height alone: in stage 4 it does not
# shift the width of 16, because the height of 8 fits in one window.
@pytest.mark.parametrize("peer", ["torchvision", pytest.param("timm", marks=pytest.mark.slow)])
@pytest.mark.heavy
def test_features_of_wide_images_agree(peer: str) -> None:
    name = "swinv2_tiny_window8_256"
    found = differences(run(name, (256, 512), torch.float32, batch=2), peer, name)
    assert all(value <= 1e-5 for value in found.values()), found
