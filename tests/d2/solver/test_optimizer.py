"""Parameter groups by full names, and scales of their learning rates."""

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.solver.optimizer import build_optimizer, learning_rate_scales

BASE = [
    "MODEL.DEVICE",
    "cpu",
    "MODEL.BACKBONE.NAME",
    "build_swinv2_fpn_backbone",
    "MODEL.FPN.IN_FEATURES",
    "['res2', 'res3', 'res4', 'res5']",
    "MODEL.FPN.OUT_CHANNELS",
    "8",
    "MODEL.SWINV2.EMBED_DIM",
    "16",
    "MODEL.SWINV2.DEPTHS",
    "(1, 1, 2, 1)",
    "MODEL.SWINV2.NUM_HEADS",
    "(1, 2, 4, 8)",
    "MODEL.SWINV2.WINDOW_SIZE",
    "4",
    "MODEL.META_ARCHITECTURE",
    "RetinaNet",
    "MODEL.RETINANET.IN_FEATURES",
    "['p2', 'p3', 'p4', 'p5', 'p6']",
    "MODEL.ANCHOR_GENERATOR.SIZES",
    "[[8], [16], [32], [64], [128]]",
    "SOLVER.BASE_LR",
    "0.01",
    "SOLVER.WEIGHT_DECAY",
    "0.05",
]


def config(*opts: str):
    return load_config("", [*BASE, *opts])


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build_model(config())


def by_name(groups: list[dict]) -> dict[str, dict]:
    return {name: group for group in groups for name in group["names"]}


def test_every_trainable_parameter_is_in_exactly_one_group(model):
    groups = build_optimizer(config(), model).param_groups
    listed = [p for group in groups for p in group["params"]]
    assert len(listed) == len({id(p) for p in listed})
    assert {id(p) for p in listed} == {id(p) for p in model.parameters() if p.requires_grad}


def test_names_belong_to_their_parameters(model):
    parameters = dict(model.named_parameters())
    for group in build_optimizer(config(), model).param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            assert parameters[name] is parameter


def test_weight_decay_is_zero_for_exactly_these_names(model):
    groups = by_name(build_optimizer(config(), model).param_groups)
    block = "backbone.bottom_up.swinv2.layers.2.blocks.1."
    free = {
        name.removeprefix(block)
        for name, group in groups.items()
        if name.startswith(block) and group["weight_decay"] == 0
    }
    assert free == {
        "attn.logit_scale",
        "attn.q_bias",
        "attn.v_bias",
        "attn.proj.bias",
        "attn.cpb_mlp.0.weight",
        "attn.cpb_mlp.0.bias",
        "attn.cpb_mlp.2.weight",
        "norm1.weight",
        "norm1.bias",
        "norm2.weight",
        "norm2.bias",
        "mlp.fc1.bias",
        "mlp.fc2.bias",
    }
    decayed = {
        name.removeprefix(block)
        for name, group in groups.items()
        if name.startswith(block) and group["weight_decay"] == 0.05
    }
    assert decayed == {"attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight"}


def test_weight_decay_outside_the_blocks_follows_the_same_rule(model):
    groups = by_name(build_optimizer(config(), model).param_groups)
    expected = {
        "backbone.bottom_up.swinv2.patch_embed.proj.weight": 0.05,
        "backbone.bottom_up.swinv2.patch_embed.proj.bias": 0,
        "backbone.bottom_up.swinv2.patch_embed.norm.weight": 0,
        "backbone.bottom_up.swinv2.layers.1.downsample.reduction.weight": 0.05,
        "backbone.bottom_up.swinv2.layers.1.downsample.norm.weight": 0,
        "backbone.bottom_up.swinv2.norms.res5.weight": 0,
        "backbone.fpn_lateral3.weight": 0.05,
        "backbone.fpn_lateral3.bias": 0,
        "head.cls_score.weight": 0.05,
        "head.cls_score.bias": 0,
    }
    assert {name: groups[name]["weight_decay"] for name in expected} == expected


def test_backbone_factor_scales_the_backbone_alone(model):
    cfg = config("SOLVER.BACKBONE_LR_FACTOR", "0.1")
    groups = by_name(build_optimizer(cfg, model).param_groups)
    for name, group in groups.items():
        factor = 0.1 if ".bottom_up." in name else 1.0
        assert group["lr"] == pytest.approx(0.01 * factor), name


def test_layer_decay_falls_block_by_block_towards_the_image(model):
    scales = learning_rate_scales(model, factor=2.0, decay=0.5)
    prefix = "backbone.bottom_up.swinv2."
    expected = {  # 5 blocks
        "patch_embed.proj.weight": 2 * 0.5**6,
        "layers.0.blocks.0.attn.qkv.weight": 2 * 0.5**5,
        "layers.1.downsample.reduction.weight": 2 * 0.5**4,
        "layers.1.blocks.0.norm1.weight": 2 * 0.5**4,
        "layers.2.downsample.norm.bias": 2 * 0.5**3,
        "layers.2.blocks.0.mlp.fc1.weight": 2 * 0.5**3,
        "layers.2.blocks.1.attn.cpb_mlp.2.weight": 2 * 0.5**2,
        "layers.3.blocks.0.attn.logit_scale": 2 * 0.5,
        "norms.res2.weight": 2.0,
        "norms.res5.bias": 2.0,
    }
    assert {name: scales[prefix + name] for name in expected} == expected
    assert all(name.startswith(prefix) for name in scales)


def test_frozen_parameters_are_left_out():
    model = build_model(config("MODEL.SWINV2.FROZEN_STAGES", "2"))
    names = set(by_name(build_optimizer(config(), model).param_groups))
    assert not any(".patch_embed." in name or ".layers.1." in name for name in names)
    assert any(".layers.2." in name for name in names)


@pytest.mark.parametrize(("name", "kind"), [("ADAMW", torch.optim.AdamW), ("SGD", torch.optim.SGD)])
def test_optimizer_is_the_one_named(model, name, kind):
    assert type(build_optimizer(config("SOLVER.OPTIMIZER", name), model)) is kind
