"""The names of the weights are frozen, so that files of today can be loaded later."""

import torch
from models import FOUR_STAGES, backbone, pictures

from swinv2_backbone import SwinV2

BLOCK = [
    "attn.logit_scale",
    "attn.q_bias",
    "attn.v_bias",
    "attn.cpb_mlp.0.weight",
    "attn.cpb_mlp.0.bias",
    "attn.cpb_mlp.2.weight",
    "attn.qkv.weight",
    "attn.proj.weight",
    "attn.proj.bias",
    "norm1.weight",
    "norm1.bias",
    "mlp.fc1.weight",
    "mlp.fc1.bias",
    "mlp.fc2.weight",
    "mlp.fc2.bias",
    "norm2.weight",
    "norm2.bias",
]
STEM = ["proj.weight", "proj.bias", "norm.weight", "norm.bias"]
MERGING = ["reduction.weight", "norm.weight", "norm.bias"]

# The order is frozen too: optimizer states number the parameters.
EXPECTED = [
    *(f"patch_embed.{name}" for name in STEM),
    *(f"layers.0.blocks.0.{name}" for name in BLOCK),
    *(f"layers.1.downsample.{name}" for name in MERGING),
    *(f"layers.1.blocks.0.{name}" for name in BLOCK),
    *(f"layers.1.blocks.1.{name}" for name in (*BLOCK, "norm3.weight", "norm3.bias")),
    *(f"layers.2.downsample.{name}" for name in MERGING),
    *(f"layers.2.blocks.0.{name}" for name in BLOCK),
    *(f"layers.3.downsample.{name}" for name in MERGING),
    *(f"layers.3.blocks.0.{name}" for name in BLOCK),
    "norms.res2.weight",
    "norms.res2.bias",
    "norms.res4.weight",
    "norms.res4.bias",
    "norms.res5.weight",
    "norms.res5.bias",
]


def small(**options) -> SwinV2:
    return backbone(
        FOUR_STAGES,
        depths=(1, 2, 1, 1),
        out_features=("res2", "res4", "res5"),
        extra_norm_every=2,
        **options,
    )


def test_state_dict_has_the_frozen_names_in_their_order():
    assert list(small().state_dict()) == EXPECTED


def test_state_dict_has_the_published_shapes():
    shapes = {name: tuple(value.shape) for name, value in small().state_dict().items()}
    assert shapes["patch_embed.proj.weight"] == (16, 3, 4, 4)
    assert shapes["layers.1.downsample.reduction.weight"] == (32, 64)
    assert shapes["layers.1.downsample.norm.weight"] == (32,)
    block = {name: shapes[f"layers.1.blocks.0.{name}"] for name in BLOCK}
    assert block == {
        "attn.logit_scale": (2, 1, 1),
        "attn.q_bias": (32,),
        "attn.v_bias": (32,),
        "attn.cpb_mlp.0.weight": (512, 2),
        "attn.cpb_mlp.0.bias": (512,),
        "attn.cpb_mlp.2.weight": (2, 512),
        "attn.qkv.weight": (96, 32),
        "attn.proj.weight": (32, 32),
        "attn.proj.bias": (32,),
        "norm1.weight": (32,),
        "norm1.bias": (32,),
        "mlp.fc1.weight": (128, 32),
        "mlp.fc1.bias": (128,),
        "mlp.fc2.weight": (32, 128),
        "mlp.fc2.bias": (32,),
        "norm2.weight": (32,),
        "norm2.bias": (32,),
    }


def test_state_dict_depends_neither_on_options_nor_on_use():
    model = small(
        window_size=7, drop_path_rate=0.2, frozen_stages=2, activation_checkpointing=True
    ).eval()
    with torch.no_grad():
        model(pictures(1, 3, 45, 33))
    assert list(model.state_dict()) == EXPECTED
    assert [name for name, _ in model.named_parameters()] == EXPECTED
    assert not list(model.buffers())


def test_state_dict_loads_into_a_model_of_another_window():
    model = SwinV2(**FOUR_STAGES | {"window_size": 9, "pretrained_window_sizes": 4})
    model.load_state_dict(backbone(FOUR_STAGES).state_dict(), strict=True)
    for name, value in backbone(FOUR_STAGES).state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
