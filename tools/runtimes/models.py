"""The models of the table of runtimes: SwinV2-T and what is built on it, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from swinv2_backbone.build import build_backbone, build_classifier
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.export.model import exportable_part
from swinv2_backbone.d2.modeling.build import build_model
from swinv2_backbone.export.exportable import Exportable, exportable_model
from swinv2_backbone.recipes import config_path

VARIANT = "swinv2_tiny_window8_256"
Module = TypeVar("Module", bound=nn.Module)


class Model(NamedTuple):
    """A model with the one shape (B, C_in, H, W) of its images."""

    build: Callable[[], Exportable]
    shape: tuple[int, int, int, int]

    @property
    def title(self) -> str:
        batch, _, height, width = self.shape
        return f"{batch} of {height} x {width}"


def _classifier() -> Exportable:
    return exportable_model(_random(build_classifier(VARIANT)))


def _backbone() -> Exportable:
    return exportable_model(_random(build_backbone(VARIANT)))


def _fpn() -> Exportable:
    return _part("mask_rcnn_swinv2", "backbone+fpn")


def _upernet() -> Exportable:
    return _part("upernet_swinv2_tiny_ade20k", "semantic")


MODELS = {
    "classifier": Model(_classifier, (1, 3, 256, 256)),
    "backbone+FPN": Model(_fpn, (1, 3, 320, 448)),
    "UPerNet": Model(_upernet, (1, 3, 256, 256)),
    "backbone": Model(_backbone, (2, 3, 200, 333)),
}


def _part(recipe: str, what: str) -> Exportable:
    config = str(config_path(recipe))
    model = build_model(load_config(config, ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""]))
    return exportable_part(_random(model), what, "RGB")


def _random(model: Module) -> Module:
    """Draw weights; some start at zero, so that exporters would fold every block to a constant."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("norm1.weight", "norm2.weight")):
                parameter.uniform_(0.5, 1, generator=generator)
            elif name.endswith(("bias", "cpb_mlp.2.weight")):
                parameter.normal_(std=0.2, generator=generator)
    return model.eval()
