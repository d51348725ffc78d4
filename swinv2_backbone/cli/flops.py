"""Parameters and multiply-adds of a model, counted on a real forward with fvcore.

Two conventions are in use.  Both leave out softmax, GELU and other elementwise work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import conv_flop_jit, get_shape, linear_flop_jit, matmul_flop_jit
from torch import nn

from swinv2_backbone.build import build_classifier
from swinv2_backbone.variants import RELEASES, VARIANTS, variant_name

CLASSES = 1000
PARAMETERS_TOLERANCE = 0.01  # millions: one in the last digit that is printed
FLOPS_TOLERANCE = 0.01  # relative to the published number

# Operators that no published count includes, besides those that fvcore ignores by itself.
MOVES = {"prim::PythonOp._Permute", "aten::index_select", "aten::unflatten", "aten::pad"}
ELEMENTWISE = {
    *("aten::add", "aten::add_", "aten::sub", "aten::rsub", "aten::mul", "aten::div", "aten::neg"),
    *("aten::abs", "aten::sign", "aten::exp", "aten::log2", "aten::sigmoid", "aten::gelu"),
    *("aten::softmax", "aten::linalg_vector_norm", "aten::clamp_min", "aten::expand_as"),
}
LAYOUT = {  # of the window permutation and the attention mask
    *("aten::cartesian_prod", "aten::empty_like", "aten::where", "aten::masked_fill_"),
    *("aten::__or__", "aten::ne", "aten::lt"),
}
FREE = MOVES | ELEMENTWISE | LAYOUT

Handle = Callable[[list, list], Counter[str]]  # inputs and outputs of an operator -> its terms


@dataclass(frozen=True)
class Cost:
    """The cost of a part of a model for one image.

    Attributes:
        parameters: Number of parameters.
        terms: Multiply-adds of "qkv", of "products" (both matrix products of attention), of
            "bias" (the MLP of the position bias) and of "layers" (all other convolutions and
            linear layers); elements of "norms" and of the "pooled" map.
    """

    parameters: int
    terms: Counter[str]

    @property
    def seed_flops(self) -> int:
        """Multiply-adds as mmpretrain counts them: by module, hence without qkv and products.

        The count includes the MLP of the bias with its ReLU, 2 for an element of a LayerNorm and 1
        for one of the pooled map.  (mmpretrain's also includes the bias of the patch embedding,
        which is 0.01 %.)
        """
        t = self.terms
        return t["layers"] + t["bias"] + 2 * t["norms"] + t["pooled"]

    @property
    def full_flops(self) -> int:
        """Multiply-adds as Microsoft counts them: with qkv and products, without the MLP of the
        bias and pooling.

        The count includes 1 for an element of a LayerNorm.  (Microsoft's counts the last LayerNorm
        four times, which is 0.003 %.)
        """
        t = self.terms
        return t["layers"] + t["qkv"] + t["products"] + t["norms"]

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.parameters + other.parameters, self.terms + other.terms)


def count_terms(model: nn.Module, images: torch.Tensor) -> dict[str, Counter[str]]:
    """Return the terms of a :class:`Cost` for every module by its name; "" is the whole model.

    Raises:
        RuntimeError: The forward has an operator that is neither counted nor known to be free.
    """
    analysis = FlopCountAnalysis(model, images).clear_op_handles().set_op_handle(**_HANDLES)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with torch.no_grad():
        terms = analysis.by_module_and_operator()
    unknown = analysis.unsupported_ops().keys() - FREE
    if unknown:
        raise RuntimeError(f"the cost of these operators is unknown: {sorted(unknown)}")
    return terms


def _owners(outputs: list[Any]) -> list[str]:
    """Return the names of the module in whose forward an operator runs, from the outermost one."""
    return outputs[0].node().scopeName().split(".")


def _convolution(inputs: list, outputs: list) -> Counter[str]:
    return Counter(layers=sum(conv_flop_jit(inputs, outputs).values()))


def _linear(inputs: list, outputs: list) -> Counter[str]:
    owners = _owners(outputs)
    term = "qkv" if owners[-1] == "qkv" else "bias" if "cpb_mlp" in owners else "layers"
    return Counter({term: linear_flop_jit(inputs, outputs)})


def _matmul(inputs: list, outputs: list) -> Counter[str]:
    term = "products" if _owners(outputs)[-1] == "attn" else "layers"
    return Counter({term: matmul_flop_jit(inputs, outputs)})


def _elements(term: str) -> Handle:
    return lambda inputs, outputs: Counter({term: prod(get_shape(inputs[0]))})


_HANDLES: dict[str, Handle] = {
    "aten::_convolution": _convolution,
    "aten::linear": _linear,
    "aten::matmul": _matmul,
    "aten::layer_norm": _elements("norms"),
    "aten::relu": _elements("bias"),  # there is no other ReLU
    "aten::mean": _elements("pooled"),
}


def analyze(
    name: str,
    image_size: tuple[int, int] | None = None,
    window_size: int | Sequence[int] | None = None,
) -> dict[str, Cost]:
    """Return the cost of every part of a classifier with 1000 classes; their sum is the whole.

    Args:
        name: A variant, or its seed name.
        image_size: (height, width) in pixels; default: the variant's.
        window_size: Default: the variant's.

    Raises:
        ValueError: The name is unknown or a size is not positive.
    """
    variant = VARIANTS[variant_name(name)]
    height, width = image_size or (variant.image_size, variant.image_size)
    if min(height, width) < 1:
        raise ValueError(f"the image size must be positive, got {height} x {width}")
    model = _without_memory(name, window_size)
    terms = count_terms(model, torch.zeros(1, 3, height, width))

    def cost(module: str) -> Cost:
        return Cost(count_parameters(model.get_submodule(module)), terms[module])

    parts = {"patch embedding": cost("backbone.patch_embed")}
    for stage in range(len(variant.depths)):
        parts[f"stage {stage + 1}"] = cost(f"backbone.layers.{stage}")
    parts["output norm"] = cost("backbone.norms.res5")
    parts["head"] = Cost(cost("head").parameters, terms[""] - terms["backbone"])  # and pooling
    return parts


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def total(parts: dict[str, Cost]) -> Cost:
    return sum(parts.values(), start=Cost(0, Counter()))


def _without_memory(name: str, window_size: int | Sequence[int] | None) -> nn.Module:
    """Build a classifier in which each weight is a single zero, expanded to its shape.

    The billions of weights of SwinV2-G then need neither memory nor random numbers.
    """
    with torch.device("meta"):
        model = build_classifier(name, num_classes=CLASSES, window_size=window_size)
    for module in model.modules():
        for key, weight in list(module.named_parameters(recurse=False)):
            zero = torch.zeros((), dtype=weight.dtype).expand(weight.shape)
            setattr(module, key, nn.Parameter(zero, requires_grad=False))
    return model.eval()


def deviations(name: str, whole: Cost) -> list[str]:
    """Describe where a variant differs from its publication; empty if it was never published."""
    release = RELEASES.get(name)
    if release is None:
        return []
    found = []
    parameters = round(whole.parameters / 1e6, 2)
    if abs(parameters - release.parameters) > PARAMETERS_TOLERANCE + 1e-9:
        found.append(f"{name}: {parameters:.2f} M parameters, published {release.parameters:.2f} M")
    for kind, flops, published in (
        ("seed", whole.seed_flops / 1e9, release.seed_flops),
        ("full", whole.full_flops / 1e9, release.full_flops),
    ):
        if abs(flops / published - 1) > FLOPS_TOLERANCE:
            found.append(f"{name}: {flops:.2f} G {kind} FLOPs, published {published:.2f} G")
    return found
