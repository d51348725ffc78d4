"""The published models: their sizes and windows, copied independently from the publications."""

import pytest
import torch

from swinv2_backbone import VARIANTS, SwinV2, build_backbone

# name: C, depths, heads, windows, pretrained, image size.
PUBLISHED = {
    "swinv2_tiny_window8_256": (96, (2, 2, 6, 2), (3, 6, 12, 24), (8, 8, 8, 8), (8, 8, 8, 8), 256),
    "swinv2_tiny_window16_256": (
        96,
        (2, 2, 6, 2),
        (3, 6, 12, 24),
        (16, 16, 16, 8),
        (16, 16, 16, 8),
        256,
    ),
    "swinv2_small_window8_256": (
        96,
        (2, 2, 18, 2),
        (3, 6, 12, 24),
        (8, 8, 8, 8),
        (8, 8, 8, 8),
        256,
    ),
    "swinv2_small_window16_256": (
        96,
        (2, 2, 18, 2),
        (3, 6, 12, 24),
        (16, 16, 16, 8),
        (16, 16, 16, 8),
        256,
    ),
    "swinv2_base_window8_256": (
        128,
        (2, 2, 18, 2),
        (4, 8, 16, 32),
        (8, 8, 8, 8),
        (8, 8, 8, 8),
        256,
    ),
    "swinv2_base_window16_256": (
        128,
        (2, 2, 18, 2),
        (4, 8, 16, 32),
        (16, 16, 16, 8),
        (16, 16, 16, 8),
        256,
    ),
    "swinv2_base_window12_192": (
        128,
        (2, 2, 18, 2),
        (4, 8, 16, 32),
        (12, 12, 12, 6),
        (12, 12, 12, 6),
        192,
    ),
    "swinv2_base_window12to16_192to256": (
        128,
        (2, 2, 18, 2),
        (4, 8, 16, 32),
        (16, 16, 16, 8),
        (12, 12, 12, 6),
        256,
    ),
    "swinv2_base_window12to24_192to384": (
        128,
        (2, 2, 18, 2),
        (4, 8, 16, 32),
        (24, 24, 24, 12),
        (12, 12, 12, 6),
        384,
    ),
    "swinv2_large_window12_192": (
        192,
        (2, 2, 18, 2),
        (6, 12, 24, 48),
        (12, 12, 12, 6),
        (12, 12, 12, 6),
        192,
    ),
    "swinv2_large_window12to16_192to256": (
        192,
        (2, 2, 18, 2),
        (6, 12, 24, 48),
        (16, 16, 16, 8),
        (12, 12, 12, 6),
        256,
    ),
    "swinv2_large_window12to24_192to384": (
        192,
        (2, 2, 18, 2),
        (6, 12, 24, 48),
        (24, 24, 24, 12),
        (12, 12, 12, 6),
        384,
    ),
}

PARAMETERS = {"tiny": 27_578_154, "small": 48_959_418, "base": 86_893_816, "large": 195_202_932}


def unallocated(name: str, **options) -> SwinV2:
    with torch.device("meta"):
        return build_backbone(name, **options)


def count(model: SwinV2) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_all_published_variants_and_no_others_are_there():
    assert list(VARIANTS) == [*PUBLISHED, "swinv2_huge", "swinv2_giant"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_variant_has_the_published_number_of_parameters(name):
    size = name.split("_")[1]
    assert count(unallocated(name, out_features=("res5",))) == PARAMETERS[size]


@pytest.mark.parametrize("name", PUBLISHED)
def test_variant_has_the_published_architecture(name):
    dim, depths, heads, windows, pretrained, image_size = PUBLISHED[name]
    assert VARIANTS[name].image_size == image_size
    model = unallocated(name)
    assert model.channels == {"res2": dim, "res3": 2 * dim, "res4": 4 * dim, "res5": 8 * dim}
    assert model.window_sizes == tuple((m, m) for m in windows)
    assert model.pretrained_window_sizes == tuple((p, p) for p in pretrained)
    assert tuple(len(stage.blocks) for stage in model.layers) == depths
    for stage, nheads, p in zip(model.layers, heads, pretrained, strict=True):
        for block in stage.blocks:
            assert block.attn.num_heads == nheads
            assert block.attn.logit_scale.shape == (nheads, 1, 1)
            assert block.attn.qkv.in_features == 32 * nheads
            assert block.attn.cpb_mlp.pretrained_window == (p, p)
            assert not hasattr(block.norm3, "weight")


@pytest.mark.parametrize(
    "name, depths, heads, parameters",
    [
        ("swinv2_huge", (2, 2, 18, 2), (11, 22, 44, 88), 658e6),
        ("swinv2_giant", (2, 2, 42, 4), (16, 32, 64, 128), 3.0e9),
    ],
)
def test_huge_and_giant_have_extra_norms_after_every_six_blocks(name, depths, heads, parameters):
    model = unallocated(name)
    assert tuple(len(stage.blocks) for stage in model.layers) == depths
    assert tuple(stage.blocks[0].attn.num_heads for stage in model.layers) == heads
    assert count(model) == pytest.approx(parameters, rel=0.01)
    extra = [
        (i, j)
        for i, stage in enumerate(model.layers, start=1)
        for j, block in enumerate(stage.blocks, start=1)
        if hasattr(block.norm3, "weight")
    ]
    assert extra == [(3, block) for block in range(6, depths[2] + 1, 6)]
    assert model.layers[2].blocks[5].norm3.weight.shape == (4 * 32 * heads[0],)
    assert model.window_sizes == model.pretrained_window_sizes == ((12, 12),) * 3 + ((6, 6),)


def test_options_of_a_variant_reach_the_model():
    model = unallocated(
        "swinv2_tiny_window8_256",
        window_size=(16, 16, 16, 8),
        pretrained_window_sizes=7,
        out_features=("res4", "res3"),
        in_channels=4,
        drop_path_rate=0.11,
        frozen_stages=2,
        activation_checkpointing=True,
        kernel="reference",
    )
    assert model.window_sizes == ((16, 16),) * 3  # no stage after res4
    assert model.pretrained_window_sizes == ((7, 7),) * 3
    assert model.channels == {"res3": 192, "res4": 384}
    assert model.patch_embed.proj.in_channels == 4
    assert model.layers[2].blocks[-1].drop_path.rate == pytest.approx(0.09)
    assert all(block.activation_checkpointing for stage in model.layers for block in stage.blocks)
    assert all(block.kernel == "reference" for stage in model.layers for block in stage.blocks)
    assert [stage.training for stage in model.layers] == [False, False, True]
