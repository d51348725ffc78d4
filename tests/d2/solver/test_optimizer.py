"""Parameter groups by full names, and scales of their learning rates."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from torch import nn

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.solver.optimizer import (
    build_optimizer,
    group_options,
    learning_rate_scales,
    parameter_groups,
)

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


class Decoder(nn.Module):
    """A model of another project: queries, a norm and a layer, without a SwinV2."""

    def __init__(self):
        super().__init__()
        self.queries, self.norm, self.layer = nn.Embedding(3, 4), nn.LayerNorm(4), nn.Linear(4, 4)


def test_embeddings_have_a_weight_decay_of_their_own():
    rates = dict(lr=1.0, weight_decay=0.05, weight_decay_norm=0.01, weight_decay_bias=None)
    for decay in (0.0, 0.02):
        groups = by_name(parameter_groups(Decoder(), **rates, weight_decay_embed=decay))
        assert {name: group["weight_decay"] for name, group in groups.items()} == {
            "queries.weight": decay,
            "norm.weight": 0.01,
            "norm.bias": 0.01,
            "layer.weight": 0.05,
            "layer.bias": 0.05,
        }


@pytest.mark.parametrize("option", [{"backbone_lr_factor": 0.1}, {"layer_decay": 0.9}])
def test_a_backbone_factor_without_a_swinv2_is_refused(option):
    with pytest.raises(ValueError, match="the Decoder has none"):
        parameter_groups(Decoder(), lr=1.0, weight_decay=0.0, **option)


def test_the_keys_of_another_projects_solver_are_understood(model):
    cfg = get_cfg()  # without any key of ours
    cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY = 0.01, 0.05
    cfg.SOLVER.BACKBONE_MULTIPLIER, cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.1, 0.03
    groups = by_name(parameter_groups(model, **group_options(cfg)))
    for name, group in groups.items():
        assert group["lr"] == pytest.approx(0.001 if ".bottom_up." in name else 0.01), name
    assert groups["head.cls_score.bias"]["weight_decay"] == 0.05  # Detectron2: as for weights
    assert group_options(cfg)["weight_decay_embed"] == 0.03
    cfg.SOLVER.BACKBONE_LR_FACTOR = 0.1  # as a config that our trainer wrote has both
    assert group_options(cfg)["backbone_lr_factor"] == 0.1
    cfg.SOLVER.BACKBONE_LR_FACTOR = 0.5
    with pytest.raises(ValueError, match=r"BACKBONE_MULTIPLIER 0\.1 mean the same"):
        group_options(cfg)


def test_adamw_updates_all_parameters_in_one_pass(model):
    assert all(group["fused"] for group in build_optimizer(config(), model).param_groups)
    other = nn.ParameterList([nn.Parameter(torch.zeros(2, dtype=torch.complex64))])
    groups = build_optimizer(config(), nn.ModuleList([model, other])).param_groups
    assert not any(group["fused"] for group in groups)
