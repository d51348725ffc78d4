"""The ways to compute a matrix product, of which the floor takes the fastest.

Operands arrive as plain blocks of numbers in the logical shapes (batch, rows, inner) and (batch,
inner, columns).  A way reads them in the memory order that they have in a model, so their values
mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarking.products import Product

Ways = dict[str, Callable[[], object]]

TILES = (4096, 16384)  # rows at a time, whose result stays in the cache
GROUPS = (2**18, 2**20, 2**22, 2**27)  # total logits of the matrices that are multiplied together


def ways(product: Product, left: Tensor, right: Tensor, out: Tensor) -> Ways:
    """Return calls that all compute the product, by name."""
    if product.kind == "linear":
        return _linear(left[0], right[0].view(product.columns, product.inner), out[0])
    if product.kind == "input_gradient":
        return _by_rows(left[0], right[0], out[0]) | _by_onednn(left[0], right[0].t(), None)
    if product.kind == "weight_gradient":
        dy = left[0].view(product.inner, product.rows)  # as it is stored: (T, outputs)
        return _weight_gradient(dy, right[0], out[0])
    if product.kind == "qk":
        right = right.view(product.batch, product.columns, product.inner).mT
    if product.kind == "transposed":
        left = left.view(product.batch, product.inner, product.rows).mT
    return _grouped(left, right, out)


def _linear(x: Tensor, weight: Tensor, out: Tensor) -> Ways:
    """x (T, inputs), weight (outputs, inputs)."""
    bias = weight[:, 0].contiguous()
    found: Ways = {"F.linear": lambda: F.linear(x, weight, bias)}
    return found | _by_rows(x, weight.t(), out) | _by_onednn(x, weight, bias)


def _weight_gradient(dy: Tensor, x: Tensor, out: Tensor) -> Ways:
    """dy (T, outputs), x (T, inputs)."""
    found: Ways = {"mm": lambda: torch.mm(dy.t(), x, out=out)}
    if x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        gradient = torch.ops.aten.mkldnn_linear_backward_weights
        found["oneDNN"] = lambda: gradient(dy.to_mkldnn(), x.to_mkldnn(), out, False)[0]
    return found


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Ways:
    """Use the weight (outputs, inputs) as is and in oneDNN's own order, where available."""
    if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return {}
    if not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return {}
    pointwise = torch.ops.mkldnn._linear_pointwise
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), len(x))
        pointwise(x[:1], packed, None, "none", [], "")
    except (NotImplementedError, RuntimeError):  # oneDNN has no code for the dtype on this CPU
        return {}
    return {
        "oneDNN": lambda: pointwise(x, weight, bias, "none", [], ""),
        "oneDNN, packed": lambda: pointwise(x, packed, bias, "none", [], ""),
    }


def _by_rows(x: Tensor, matrix: Tensor, out: Tensor) -> Ways:
    """Multiply all rows at once into preallocated memory, and tile by tile into the same memory.

    Code that works tile by tile uses the result of a tile before it leaves the cache.
    """
    found: Ways = {"mm": lambda: torch.mm(x, matrix, out=out)}
    for rows in TILES:
        if rows < len(x):
            found[f"mm, {rows} rows at a time"] = _tiled(x, matrix, out, rows)
    return found


def _tiled(x: Tensor, matrix: Tensor, out: Tensor, rows: int) -> Callable[[], None]:
    tiles = [(tile, out[: len(tile)]) for tile in x.split(rows)]

    def call() -> None:
        for tile, result in tiles:
            torch.mm(tile, matrix, out=result)

    return call


def _grouped(left: Tensor, right: Tensor, out: Tensor) -> Ways:
    """Compute a batched product, some matrices at a time, into the same memory."""
    logits = max(one.shape[1] * one.shape[2] for one in (left, out))
    sizes = {min(len(left), max(1, numbers // logits)) for numbers in GROUPS}
    found: Ways = {}
    for size in sorted(sizes):
        parts = [(a, b, out[: len(a)]) for a, b in zip(left.split(size), right.split(size))]
        found[f"bmm, {size} matrices at a time"] = _batched(parts)
    return found


def _batched(parts: list[tuple[Tensor, Tensor, Tensor]]) -> Callable[[], None]:
    def call() -> None:
        for left, right, result in parts:
            torch.bmm(left, right, out=result)

    return call
