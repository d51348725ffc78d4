"""Stand-ins for other projects, so that the configs that need them are checked without them.

A stand-in has what our configs use of a project: its keys with values of the same types, a
registered name, the arguments of its model. No code here is the project's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from detectron2.config import CfgNode
from detectron2.config import LazyCall as L
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

HEAD = {  # keys of MODEL.SEM_SEG_HEAD
    "MASK_DIM": 256,
    "PIXEL_DECODER_NAME": "",
    "TRANSFORMER_ENC_LAYERS": 0,
    "DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": ["res3", "res4", "res5"],
}
TASKS = {"SEMANTIC_ON": True, "INSTANCE_ON": False, "PANOPTIC_ON": False}
THRESHOLDS = {"OVERLAP_THRESHOLD": 0.0, "OBJECT_MASK_THRESHOLD": 0.0}
DECODER = {  # keys of MODEL.MASK_FORMER and MODEL.MaskDINO
    "NUM_OBJECT_QUERIES": 100,
    "DEC_LAYERS": 6,
    "HIDDEN_DIM": 256,
    "DIM_FEEDFORWARD": 2048,
    "DROPOUT": 0.1,
    "TRAIN_NUM_POINTS": 12544,
    "TEST": {**TASKS, **THRESHOLDS},
}


def _add_shared(cfg: CfgNode) -> None:
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_semantic"
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.0
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    cfg.MODEL.SEM_SEG_HEAD.update(HEAD)


def add_maskformer2_config(cfg: CfgNode) -> None:
    _add_shared(cfg)
    weights = {"CLASS_WEIGHT": 1.0, "MASK_WEIGHT": 20.0, "DICE_WEIGHT": 1.0}
    own = {**DECODER, **weights, "TRANSFORMER_IN_FEATURE": "res5"}
    cfg.MODEL.MASK_FORMER = CfgNode(own)


def add_maskdino_config(cfg: CfgNode) -> None:
    _add_shared(cfg)
    levels = {"NUM_FEATURE_LEVELS": 3, "TOTAL_NUM_FEATURE_LEVELS": 4}
    encoder = {"DIM_FEEDFORWARD": 1024, "FEATURE_ORDER": "high2low"}
    cfg.MODEL.SEM_SEG_HEAD.update({**levels, **encoder})
    cfg.MODEL.MaskDINO = CfgNode({**DECODER, "INITIALIZE_BOX_TYPE": "no", "DN_NUM": 100})


class MaskFormer(nn.Module):
    """A name in the registry."""


class MaskDINO(nn.Module):
    """A name in the registry."""


class Part(nn.Module):
    """A part of DINO, which keeps its arguments."""

    def __init__(self, **arguments: Any):
        super().__init__()
        self.arguments = arguments


class DINO(nn.Module):
    def __init__(  # noqa: PLR0913
        self,
        backbone: nn.Module,
        position_embedding: nn.Module,
        neck: nn.Module,
        transformer: nn.Module,
        embed_dim: int,
        num_classes: int,
        num_queries: int,
        pixel_mean: list[float],
        pixel_std: list[float],
        select_box_nums_for_evaluation: int = 300,
        device: str = "cuda",
        dn_number: int = 100,
    ):
        super().__init__()
        self.backbone, self.neck, self.device = backbone, neck, device


def _dino() -> Any:
    layers = {"embed_dim": 256, "feedforward_dim": 2048, "num_layers": 6}
    return L(DINO)(
        backbone=L(Part)(),
        position_embedding=L(Part)(num_pos_feats=128),
        neck=L(Part)(
            input_shapes={},
            in_features=["res3", "res4", "res5"],
            out_channels=256,
            norm_layer=L(Part)(num_channels=256),
        ),
        transformer=L(Part)(encoder=L(Part)(**layers), decoder=L(Part)(**layers)),
        embed_dim=256,
        num_classes=80,
        num_queries=900,
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
        device="cuda",
        dn_number=100,
    )


def _modules() -> dict[str, ModuleType]:
    contents: dict[str, dict[str, Any]] = {
        "mask2former": {"add_maskformer2_config": add_maskformer2_config},
        "maskdino": {"add_maskdino_config": add_maskdino_config},
        "without_gpu": {},
        "projects.dino.configs.models.dino_r50": {"model": _dino()},
    }
    modules: dict[str, ModuleType] = {}
    for name, content in contents.items():
        *path, _ = name.split(".")
        for depth in range(1, len(path) + 1):
            modules[".".join(path[:depth])] = package = ModuleType(".".join(path[:depth]))
            package.__path__ = []
        modules[name] = ModuleType(name)
        vars(modules[name]).update(content)
    for name in modules:
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(modules[parent], last, modules[name])
    return modules


@contextmanager
def stand_ins() -> Iterator[None]:
    """Make the stand-ins importable and register their names; leave what else is imported."""
    names = {each.__name__: each for each in (MaskFormer, MaskDINO)}
    with _added(sys.modules, _modules()), _added(META_ARCH_REGISTRY._obj_map, names):
        yield


@contextmanager
def _added(mapping: dict, entries: dict) -> Iterator[None]:
    before = {key: mapping[key] for key in entries if key in mapping}
    mapping.update(entries)
    try:
        yield
    finally:
        for key in entries:
            del mapping[key]
        mapping.update(before)
