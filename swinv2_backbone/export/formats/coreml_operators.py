"""The operators of CoreML's programs in PyTorch, to check a package where CoreML does not run.

The names and arguments are those of the Model Intermediate Language (MIL) of coremltools.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Given = Mapping[str, Any]  # arguments by name
TENSORS = {"x", "y", "weight", "bias", "gamma", "beta", "indices"}  # the others are numbers
APPROXIMATIONS = {"EXACT": "none", "TANH_APPROXIMATION": "tanh"}


def _padding(given: Given) -> tuple[Sequence[int], Sequence[int]]:
    """Return (before, after) of each spatial axis of a convolution or pooling."""
    if given["pad_type"] == "valid":
        return (0, 0), (0, 0)
    if given["pad_type"] != "custom":
        raise NotImplementedError(f"padding {given['pad_type']!r} of CoreML")
    pad = given["pad"]
    return (pad[0], pad[2]), (pad[1], pad[3])


def _padded(x: Tensor, given: Given, value: float = 0.0) -> Tensor:
    before, after = _padding(given)
    return F.pad(x, (before[1], after[1], before[0], after[0]), value=value)


def _conv(given: Given) -> Tensor:
    x = _padded(given["x"], given)
    return F.conv2d(
        x,
        given["weight"],
        given.get("bias"),
        tuple(given["strides"]),
        dilation=tuple(given["dilations"]),
        groups=given["groups"],
    )


def _pad(given: Given) -> Tensor:
    if given["mode"] != "constant":
        raise NotImplementedError(f"padding {given['mode']!r} of CoreML")
    pairs = np.reshape(given["pad"], (-1, 2))[::-1]  # PyTorch begins with the last axis
    return F.pad(given["x"], pairs.flatten().tolist(), value=float(given["constant_val"]))


def _slice(given: Given) -> Tensor:
    x = given["x"]
    masked = [given.get(f"{end}_mask", [False] * x.ndim) for end in ("begin", "end")]
    stride = given.get("stride", [1] * x.ndim)
    squeezed = given.get("squeeze_mask", [False] * x.ndim)
    index: list[Any] = []
    for axis in range(x.ndim):
        begin = None if masked[0][axis] else int(given["begin"][axis])
        end = None if masked[1][axis] else int(given["end"][axis])
        index.append(begin if squeezed[axis] else slice(begin, end, int(stride[axis])))
    return x[tuple(index)]


def _matmul(given: Given) -> Tensor:
    x, y = (
        given[name].mT if given.get(f"transpose_{name}") else given[name] for name in ("x", "y")
    )
    return x @ y


def _layer_norm(given: Given) -> Tensor:
    x, axes = given["x"], [int(axis) for axis in given["axes"]]
    shape = [x.shape[axis] for axis in axes]
    return F.layer_norm(x, shape, given.get("gamma"), given.get("beta"), float(given["epsilon"]))


def _gather(given: Given) -> Tensor:
    x, indices, axis = given["x"], given["indices"], int(given["axis"])
    found = x.index_select(axis, indices.flatten().long())
    return found.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _resized(given: Given, **options: Any) -> Tensor:
    x = given["x"]
    factors = [float(given[f"scale_factor_{side}"]) for side in ("height", "width")]
    size = [int(n * factor + 1e-3) for n, factor in zip(x.shape[2:], factors)]
    return F.interpolate(x, size, **options)


def _pooled(given: Given) -> Tensor:
    x = _padded(given["x"], given, value=-torch.inf)
    return F.max_pool2d(x, tuple(given["kernel_sizes"]), tuple(given["strides"]))


def _reduce(function: Callable[..., Tensor]) -> Callable[[Given], Tensor]:
    return lambda given: function(
        given["x"], tuple(int(axis) for axis in given["axes"]), bool(given["keep_dims"])
    )


def _pair(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Given], Tensor]:
    return lambda given: function(given["x"], given["y"])


OPERATORS: dict[str, Callable[[Given], Tensor]] = {
    "add": _pair(torch.add),
    "sub": _pair(torch.sub),
    "mul": _pair(torch.mul),
    "real_div": _pair(torch.div),
    "maximum": _pair(torch.maximum),
    "minimum": _pair(torch.minimum),
    "pow": _pair(torch.pow),
    "square": lambda given: given["x"].square(),
    "sqrt": lambda given: given["x"].sqrt(),
    "rsqrt": lambda given: torch.rsqrt(given["x"] + float(given["epsilon"])),
    "inverse": lambda given: torch.reciprocal(given["x"] + float(given["epsilon"])),
    "clip": lambda given: given["x"].clamp(float(given["alpha"]), float(given["beta"])),
    "relu": lambda given: given["x"].relu(),
    "softmax": lambda given: given["x"].softmax(int(given["axis"])),
    "gelu": lambda given: F.gelu(given["x"], approximate=APPROXIMATIONS[given["mode"]]),
    "linear": lambda given: F.linear(given["x"], given["weight"], given.get("bias")),
    "matmul": _matmul,
    "layer_norm": _layer_norm,
    "conv": _conv,
    "max_pool": _pooled,
    "reduce_sum": _reduce(torch.sum),
    "reduce_mean": _reduce(torch.mean),
    "reshape": lambda given: given["x"].reshape([int(n) for n in given["shape"]]),
    "transpose": lambda given: given["x"].permute([int(n) for n in given["perm"]]),
    "expand_dims": lambda given: _expanded(given["x"], given["axes"]),
    "squeeze": lambda given: given["x"].squeeze([int(n) for n in given["axes"]]),
    "concat": lambda given: torch.cat(list(given["values"]), int(given["axis"])),
    "slice_by_index": _slice,
    "gather": _gather,
    "pad": _pad,
    "upsample_nearest_neighbor": lambda given: _resized(given, mode="nearest"),
    "upsample_bilinear": lambda given: _resized(
        given, mode="bilinear", align_corners=bool(given["align_corners"])
    ),
}


def _expanded(x: Tensor, axes: Sequence[int]) -> Tensor:
    for axis in sorted(int(axis) for axis in axes):
        x = x.unsqueeze(axis)
    return x


@torch.no_grad()
def evaluate(function: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Evaluate a MIL function; return its outputs by name.

    Raises:
        NotImplementedError: an operator is not in ``OPERATORS``.
    """
    known: dict[str, Any] = dict(inputs)

    def value(variable: Any) -> Any:
        if isinstance(variable, (list, tuple)):
            return [value(one) for one in variable]
        return known.get(variable.name, variable.val)

    for operator in function.operations:
        if operator.op_type == "const":
            continue
        if operator.op_type not in OPERATORS:
            raise NotImplementedError(f"the operator {operator.op_type} of CoreML")
        given = {key: value(one) for key, one in operator.inputs.items() if one is not None}
        tensors = {key: torch.as_tensor(given[key]) for key in given.keys() & TENSORS}
        (output,) = operator.outputs
        known[output.name] = OPERATORS[operator.op_type](given | tensors)
    return {output.name: known[output.name] for output in function.outputs}
