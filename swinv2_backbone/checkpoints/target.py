"""A model to load weights into: its tensors, and the places of its backbone and its head."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.classifier import SwinV2Classifier

BASE_LAYER = "base_layer"  # the name of the adapted layer within an adapter, as in peft


class Target(NamedTuple):
    """A model with one SwinV2 in it.

    Attributes:
        state: its parameters and buffers, by name.
        backbone: its SwinV2.
        prefix: the prefix of the backbone's names.
        head: the prefix of the classifier head's names; None if there is no classifier.
    """

    state: dict[str, Tensor]
    backbone: SwinV2
    prefix: str
    head: str | None

    def is_inside(self, name: str) -> bool:
        """Return True for the name of a tensor of the backbone."""
        return name.startswith(self.prefix)

    def name_of(self, ours: str) -> str:
        """Return the model's name of one of our names; an adapter keeps its layer as base_layer."""
        name = self.prefix + ours
        layer, _, last = name.rpartition(".")
        kept = f"{layer}.{BASE_LAYER}.{last}"
        return kept if name not in self.state and kept in self.state else name

    def is_of_adapter(self, name: str) -> bool:
        """Return True for the name of a tensor that an adapter adds to a layer."""
        parts = name.split(".")
        return BASE_LAYER not in parts and any(
            ".".join([*parts[:i], BASE_LAYER, "weight"]) in self.state for i in range(len(parts))
        )

    def is_head(self, name: str) -> bool:
        """Return True for the name of a tensor of the classifier head."""
        return self.head is not None and name.startswith(self.head)


def target_of(model: nn.Module) -> Target:
    """Find the backbone and the head of a model.

    Raises:
        ValueError: the model has no SwinV2 or several.
    """
    prefix, backbone = find_backbone(model)
    return Target(model.state_dict(keep_vars=True), backbone, prefix, _head_prefix(model))


def find_backbone(model: nn.Module) -> tuple[str, SwinV2]:
    """Return the prefix of the names of a model's only SwinV2, and the SwinV2.

    Raises:
        ValueError: the model has no SwinV2 or several.
    """
    found = [(name, part) for name, part in model.named_modules() if isinstance(part, SwinV2)]
    if len(found) != 1:
        where = f": {', '.join(name for name, _ in found)}; load into each" if found else ""
        raise ValueError(
            f"{type(model).__name__} has {len(found)} SwinV2 backbones, not one{where}"
        )
    name, backbone = found[0]
    return f"{name}." if name else "", backbone


def _head_prefix(model: nn.Module) -> str | None:
    for name, part in model.named_modules():
        if isinstance(part, SwinV2Classifier):
            return f"{name}.head." if name else "head."
    return None
