"""Changes that users make to layers: hooks, adapters, parametrizations, quantized weights.

A change is a function (model, name of a layer) -> the effective weights of the layer, with which an
unchanged layer computes the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from models import TWO_STAGES, backbone, pictures
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from swinv2_backbone import SwinV2

# A model of one stage, for what takes long.
ONE_STAGE = {"depths": (1,), "num_heads": (2,), "out_features": ("res2",)}
BLOCK = "layers.0.blocks.0"
LINEAR = [
    f"{BLOCK}.attn.qkv",
    f"{BLOCK}.attn.proj",
    f"{BLOCK}.attn.cpb_mlp.0",
    f"{BLOCK}.attn.cpb_mlp.2",
    f"{BLOCK}.mlp.fc1",
    f"{BLOCK}.mlp.fc2",
    "layers.1.downsample.reduction",
    "patch_embed.proj",
]
NORMS = [
    f"{BLOCK}.norm1",
    f"{BLOCK}.norm2",
    f"{BLOCK}.norm3",
    "layers.1.downsample.norm",
    "patch_embed.norm",
    "norms.res3",
]
Weights = tuple[Tensor, Tensor | None]  # the effective weight and bias
Change = Callable[[nn.Module, str], Weights]


def small_backbone(**options) -> SwinV2:
    model = backbone(TWO_STAGES | {"depths": (1, 1)} | options, extra_norm_every=1).double().eval()
    with torch.no_grad():
        for name in LINEAR:  # an MLP of large weights has a bias of 0 or 16 everywhere
            if "cpb_mlp" in name:
                model.get_submodule(name).weight.mul_(0.3)
    return model


def replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, layer)


# Changes of the layer with a name; each returns the effective weights.


def weights_of(layer: nn.Module) -> Weights:
    return (
        layer.weight.detach().clone(),
        None if layer.bias is None else layer.bias.detach().clone(),
    )


def gains(channels: int) -> Tensor:
    """Return a factor for each channel; a norm that follows would hide a common one."""
    return torch.linspace(0.5, 2, channels, dtype=torch.float64)


def gained(out: Tensor) -> Tensor:
    """Multiply the output of a layer by the gains of its channels."""
    factors = gains(out.shape[1])[:, None, None] if out.ndim == 4 else gains(out.shape[-1])
    return out * factors.to(out.dtype)


def gained_weights(layer: nn.Module) -> Weights:
    weight, bias = weights_of(layer)
    factors = gains(len(weight))
    return factors.view(
        -1, *(1,) * (weight.ndim - 1)
    ) * weight, None if bias is None else factors * bias


def forward_hook(model: nn.Module, name: str) -> Weights:
    layer = model.get_submodule(name)
    layer.register_forward_hook(lambda module, given, out: gained(out))
    return gained_weights(layer)


def forward_hook_with_keywords(model: nn.Module, name: str) -> Weights:
    layer = model.get_submodule(name)
    layer.register_forward_hook(lambda module, given, options, out: gained(out), with_kwargs=True)
    return gained_weights(layer)


def forward_pre_hook(model: nn.Module, name: str) -> Weights:
    layer = model.get_submodule(name)
    layer.register_forward_pre_hook(lambda module, given: (-given[0],))
    weight, bias = weights_of(layer)
    return -weight, bias


def own_forward(model: nn.Module, name: str) -> Weights:
    layer = model.get_submodule(name)
    original = layer.forward
    layer.forward = lambda x: gained(original(x))
    return gained_weights(layer)


def subclass(model: nn.Module, name: str) -> Weights:
    layer = model.get_submodule(name)
    kind = type(layer)
    forward = {"forward": lambda self, x: gained(kind.forward(self, x))}
    layer.__class__ = type("Gained", (kind,), forward)
    return gained_weights(layer)


class Adapter(nn.Module):
    """A layer with a low-rank update, as in LoRA; a norm is multiplied instead."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.base_layer = layer
        if isinstance(layer, nn.LayerNorm):
            return
        weight = layer.weight
        rest = (1,) * (weight.ndim - 2)
        self.down = nn.Parameter(pictures(2, *weight.shape[1:]).to(weight) / 4)
        self.up = nn.Parameter(pictures(len(weight), 2, *rest, seed=1).to(weight) / 4)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.base_layer
        if isinstance(layer, nn.LayerNorm):
            return gained(layer(x))
        if isinstance(layer, nn.Conv2d):
            return layer(x) + F.conv2d(F.conv2d(x, self.down, stride=layer.stride), self.up)
        return layer(x) + F.linear(F.linear(x, self.down), self.up)


def adapter(model: nn.Module, name: str) -> Weights:
    adapted = Adapter(model.get_submodule(name))
    replace(model, name, adapted)
    weight, bias = weights_of(adapted.base_layer)
    if isinstance(adapted.base_layer, nn.LayerNorm):
        return gained_weights(adapted.base_layer)
    update = adapted.up.flatten(1) @ adapted.down.flatten(1)
    return weight + update.detach().view_as(weight), bias


class Gained(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        factors = gains(len(weight)).to(weight.dtype)
        return factors.view(-1, *(1,) * (weight.ndim - 1)) * weight


def parametrization(model: nn.Module, name: str) -> Weights:
    layer = model.get_submodule(name)
    parametrize.register_parametrization(layer, "weight", Gained(), unsafe=True)
    return weights_of(layer)


def weight_norm(model: nn.Module, name: str) -> Weights:
    layer = parametrizations.weight_norm(model.get_submodule(name))
    with torch.no_grad():
        norms = layer.parametrizations.weight.original0
        norms.mul_(gains(len(norms)).view_as(norms))
    return weights_of(layer)


def spectral_norm(model: nn.Module, name: str) -> Weights:
    return weights_of(parametrizations.spectral_norm(model.get_submodule(name)).eval())


def orthogonal(model: nn.Module, name: str) -> Weights:
    return weights_of(parametrizations.orthogonal(model.get_submodule(name)))


def pruning(model: nn.Module, name: str) -> Weights:
    return weights_of(prune.l1_unstructured(model.get_submodule(name), "weight", amount=0.5))


class Quantized(Tensor):
    """A weight in steps of 1/4, stored as whole numbers, as quantized tensors are.

    It means something to the layers' functions alone, and requires no gradient.
    """

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in (F.linear, F.conv2d, torch.conv2d, F.layer_norm, torch.layer_norm):
            args = [x.as_subclass(Tensor) / 4 if isinstance(x, cls) else x for x in args]
            kwargs = {
                key: x.as_subclass(Tensor) / 4 if isinstance(x, cls) else x
                for key, x in (kwargs or {}).items()
            }
            return function(*args, **kwargs)
        return super().__torch_function__(function, types, args, kwargs or {})


def quantized(model: nn.Module, name: str) -> Weights:
    layer = model.get_submodule(name)
    weight, bias = weights_of(layer)
    steps = (4 * weight).round()
    layer.weight = nn.Parameter(steps.as_subclass(Quantized), requires_grad=False)
    return steps / 4, bias


EVERYWHERE = [
    forward_hook,
    forward_hook_with_keywords,
    forward_pre_hook,
    own_forward,
    subclass,
    adapter,
    parametrization,
    pruning,
    quantized,
]
OF_MATRICES = [weight_norm, spectral_norm, orthogonal]


def with_weights(model: SwinV2, name: str, weights: Weights) -> SwinV2:
    """Return a model whose layer has effective weights."""
    layer = model.get_submodule(name)
    with torch.no_grad():
        layer.weight.copy_(weights[0])
        if weights[1] is not None:
            layer.bias.copy_(weights[1])
    return model


def everywhere(change: Change, model: SwinV2) -> dict[str, Weights]:
    """Change all layers that a model has; return the effective weights by the layer's name."""
    own = dict(model.named_modules())
    return {name: change(model, name) for name in LINEAR + NORMS if name in own}
