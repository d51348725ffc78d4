"""What ``lora.py`` of docs/ADAPTERS.md uses of peft, for tests where peft is not installed."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class LoraConfig:
    r: int
    lora_alpha: int
    target_modules: list[str]


class BaseTunerLayer:
    """A layer within an adapter."""


class Lora(nn.Module, BaseTunerLayer):
    def __init__(self, layer: nn.Module, config: LoraConfig):
        super().__init__()
        self.base_layer, self.scaling = layer, config.lora_alpha / config.r
        weight = layer.weight
        down = torch.empty(config.r, *weight.shape[1:])
        nn.init.kaiming_uniform_(down.view(config.r, -1), a=5**0.5)
        up = torch.zeros(len(weight), config.r)
        self.lora_A = nn.ParameterDict({"default": down})
        self.lora_B = nn.ParameterDict({"default": up})

    def forward(self, x: Tensor) -> Tensor:
        down, up = self.lora_A["default"], self.lora_B["default"]
        if isinstance(self.base_layer, nn.Conv2d):
            update = F.conv2d(F.conv2d(x, down, stride=self.base_layer.stride), up[..., None, None])
        else:
            update = F.linear(F.linear(x, down), up)
        return self.base_layer(x) + self.scaling * update

    def merge(self, safe_merge: bool) -> None:
        weight = self.base_layer.weight
        update = self.lora_B["default"] @ self.lora_A["default"].flatten(1)
        weight.data += self.scaling * update.detach().view_as(weight)

    def get_base_layer(self) -> nn.Module:
        return self.base_layer


def inject_adapter_in_model(config: LoraConfig, model: nn.Module) -> nn.Module:
    model.requires_grad_(False)
    for name, layer in list(model.named_modules()):
        if any(f".{name}".endswith(f".{target}") for target in config.target_modules):
            model.set_submodule(name, Lora(layer, config))
    return model


def install() -> None:
    """Make this module importable as peft, unless peft is installed."""
    if importlib.util.find_spec("peft") is not None:
        return
    this = sys.modules[__name__]
    peft, tuners = ModuleType("peft"), ModuleType("peft.tuners")
    peft.LoraConfig, peft.inject_adapter_in_model = LoraConfig, inject_adapter_in_model
    peft.__spec__ = importlib.util.spec_from_loader("peft", loader=None)
    sys.modules |= {"peft": peft, "peft.tuners": tuners, "peft.tuners.tuners_utils": this}
