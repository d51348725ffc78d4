"""Scaled cosine attention of one tile, forward and backward, by groups of clipped windows.

The functions compute ``attention.cosine_attention`` between tokens that share a clipped window (see
tiles.py).  Tokens are in map order; multiplying them by the inverse norms also gathers them into
windows.  Logits are computed for as many windows, heads or queries at a time as fit into a budget:
the paper's "sequential self-attention", for windows of any size.

Legend: n tokens of the tile; R clipped windows of one size; N tokens of such a window; nH heads; d
channels per head; C = nH * d.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from swinv2_backbone.kernels.cpu.native import HEAD_DIM, Native, native
from swinv2_backbone.kernels.tiles import Group, Tile
from swinv2_backbone.packing import Size
from swinv2_backbone.position_bias import bias_matrix, offset_index, offsets_within

EPS = 1e-6  # lower bound of the norms of queries and keys, as in attention.py
LOGITS_BYTES = 3 * 2**19  # size of the logits held at a time, which fits the cache of 1 or 2 cores
BIAS_BYTES = 2**26  # for gradients of the bias, one for each thread; above, all threads share one
SMALL = 200  # tokens; in larger windows PyTorch's fused attention is faster


class WindowBias:
    """The bias of clipped windows of any size (h, w) in a ``window``, from the table of offsets."""

    def __init__(self, table: Tensor, window: Size):
        self.table, self.window = table, window
        self.matrices: dict[Size, Tensor] = {}

    def __getitem__(self, size: Size) -> Tensor:
        """Return the bias from query i to key j, (nH, N, N)."""
        if size not in self.matrices:
            offsets, library = offsets_within(self.table, self.window, size), self._library()
            self.matrices[size] = (
                library.bias(offsets.contiguous(), size) if library else bias_matrix(offsets)
            )
        return self.matrices[size]

    def gradient(self, of_matrices: dict[Size, Tensor]) -> Tensor:
        """Return the gradient of the table (nH, offsets) from those of the matrices.

        Args:
            of_matrices: by size of the window, (T, nH, N, N), summed over the first axis.
        """
        total = torch.zeros_like(self.table)
        for size, of_matrix in of_matrices.items():
            offsets, library = offsets_within(total, self.window, size), self._library()
            matrix = of_matrix[0] if len(of_matrix) == 1 else of_matrix.sum(0)
            if library:
                offsets += library.bias_backward(matrix, size)
                continue
            index = offset_index(size, total.device)
            own = torch.zeros_like(offsets).flatten(1).index_add_(1, index, matrix.flatten(1))
            offsets += own.view_as(offsets)
        return total

    def _library(self) -> Native | None:
        fits = self.table.dtype == torch.float32 and self.table.device.type == "cpu"
        return native() if fits else None


def tile_attention(qkv: Tensor, scale: Tensor, bias: WindowBias, tile: Tile) -> Tensor:
    """(n, 3C) -> (n, C), in the dtype of ``qkv``.

    Args:
        qkv: the queries, keys and values of the tile's tokens.
        scale: (nH, 1), float32 or float64; attention is computed in this dtype.
        bias: the bias of clipped windows, in the dtype of ``scale``.
        tile: the tile.
    """
    if library := _native_for(qkv, scale):
        return _by_native(library, qkv.float(), scale, bias, tile).to(qkv.dtype)
    heads = qkv.to(scale.dtype).unflatten(1, (3 * len(scale), -1))
    factors, _ = _cosine_factors(heads, scale)
    out = torch.empty_like(heads[:, : len(scale)], memory_format=torch.contiguous_format)
    for group in tile.groups:
        q, k, v = _gather(heads, factors, group)
        _scatter(_attend(q, k, v, bias[group.size]), out, group)
    return out.flatten(1).to(qkv.dtype)


def tile_attention_backward(
    grad: Tensor,
    qkv: Tensor,
    scale: Tensor,
    bias: WindowBias,
    tile: Tile,
    grad_scale: Tensor,
    grad_bias: dict[Size, Tensor],
) -> Tensor:
    """Return the gradient (n, 3C) of ``qkv`` from the gradient (n, C) of the result.

    The gradients of ``scale`` and of the bias matrices are added to ``grad_scale`` and
    ``grad_bias``; the latter are (T, nH, N, N), to be summed over the first axis.
    """
    if library := _native_for(qkv, scale):
        found = _backward_by_native(
            library, grad.float(), qkv.float(), scale, bias, tile, grad_scale, grad_bias
        )
        return found.to(qkv.dtype)
    num_heads = len(scale)
    heads = qkv.to(scale.dtype).unflatten(1, (3 * num_heads, -1))
    grad = grad.to(scale.dtype).unflatten(1, (num_heads, -1))
    factors, norms = _cosine_factors(heads, scale)
    grad_heads = torch.empty_like(heads)
    for group in tile.groups:
        matrix = bias[group.size]
        if group.size not in grad_bias:
            grad_bias[group.size] = matrix.new_zeros(1, *matrix.shape)
        q, k, v = _gather(heads, factors, group)
        grad_out = group.windows(grad).contiguous().view_as(q)
        grads = _attend_backward(grad_out, q, k, v, matrix, grad_bias[group.size][0])
        _scatter(grads, grad_heads, group)
    # y = factor * x, factor = scale / |x|: dx = factor * (dy - x (x . dy) / |x|^2)
    x, dy, factor = (each[:, : 2 * num_heads] for each in (heads, grad_heads, factors))
    inner = (x * dy).sum(dim=2, keepdim=True)
    grad_scale += (inner[:, :num_heads] / norms[:, :num_heads].clamp(min=EPS)).sum(dim=0)
    inner = torch.where(norms > EPS, inner / norms.square(), 0)
    dy.addcmul_(x, inner, value=-1).mul_(factor)
    return grad_heads.flatten(1).to(qkv.dtype)


def _native_for(qkv: Tensor, scale: Tensor) -> Native | None:
    """Return the native kernels if they can compute the attention of ``qkv`` (n, 3C)."""
    fits = scale.dtype == torch.float32 and qkv.shape[1] == 3 * HEAD_DIM * len(scale)
    return native() if fits and qkv.device.type == "cpu" else None


def _by_native(library: Native, qkv: Tensor, scale: Tensor, bias: WindowBias, tile: Tile) -> Tensor:
    """Compute :func:`tile_attention` in float32."""
    qkv = qkv.contiguous()
    out = qkv.new_empty(len(qkv), qkv.shape[1] // 3)
    for group in tile.groups:
        library.attend(qkv, scale, bias[group.size], group, out)
    return out


def _backward_by_native(
    library: Native,
    grad: Tensor,
    qkv: Tensor,
    scale: Tensor,
    bias: WindowBias,
    tile: Tile,
    grad_scale: Tensor,
    grad_bias: dict[Size, Tensor],
) -> Tensor:
    """Compute :func:`tile_attention_backward` in float32."""
    grad, qkv, threads = grad.contiguous(), qkv.contiguous(), torch.get_num_threads()
    grad_qkv = torch.empty_like(qkv)
    sums = torch.zeros(threads, len(scale), dtype=torch.float64)
    for group in tile.groups:
        matrix = bias[group.size]
        if group.size not in grad_bias:
            copies = threads if threads * matrix.nbytes <= BIAS_BYTES else 1
            grad_bias[group.size] = matrix.new_zeros(copies, *matrix.shape)
        own = grad_bias[group.size]
        library.attend_backward(grad, qkv, scale, matrix, group, grad_qkv, sums, own)
    grad_scale += sums.sum(0).float()[:, None]
    return grad_qkv


def _cosine_factors(heads: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return factors and norms of heads (n, 3 nH, d).

    Queries, keys and values are multiplied by the factors (n, 3 nH, 1): scale / |q|, 1 / |k| and 1.
    The norms of queries and keys are (n, 2 nH, 1).
    """
    num_heads = len(scale)
    norms = torch.linalg.vector_norm(heads[:, : 2 * num_heads], dim=2, keepdim=True)
    factors = norms.new_ones(len(heads), 3 * num_heads, 1)
    torch.reciprocal(norms.clamp(min=EPS), out=factors[:, : 2 * num_heads])
    factors[:, :num_heads] *= scale
    return factors, norms


def _gather(heads: Tensor, factors: Tensor, group: Group) -> Tensor:
    """Return the scaled queries, keys and values of a group, (3, R, nH, N, d)."""
    heads, factors = group.windows(heads, parts=3), group.windows(factors, parts=3)
    num_heads, h, w, channels = heads.shape[4:]
    windows = factors.new_empty(3, group.num_windows, num_heads, h * w, channels)
    torch.mul(heads, factors, out=windows.view(heads.shape))
    return windows


def _scatter(windows: Tensor, heads: Tensor, group: Group) -> None:
    """Write (parts, R, nH, N, d) into the heads (n, parts * nH, d) of the tile's tokens."""
    parts = 3 if windows.ndim == 5 else 1
    heads = group.windows(heads, parts)
    heads.copy_(windows.view(heads.shape))


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Compute softmax(q k^T + bias) v, (R, nH, N, d), with a bias (nH, N, N)."""
    if q.shape[2] > SMALL:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None], scale=1.0)
    out = torch.empty_like(q)
    for own, queries in _portions(q, bias):
        p = _probabilities(_flat(q[own])[:, queries], _flat(k[own]), bias[own[1], queries])
        torch.bmm(p, _flat(v[own]), out=_flat(out[own])[:, queries])
    return out


def _attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, grad_bias: Tensor
) -> Tensor:
    """Return the gradients (3, R, nH, N, d) of q, k, v; add that of the bias to ``grad_bias``."""
    grads = q.new_zeros(3, *q.shape)
    for own, queries in _portions(q, bias):
        q_own, k_own, v_own, grad_own = (_flat(x[own]) for x in (q, k, v, grad))
        grad_q, grad_k, grad_v = (_flat(x[own]) for x in grads)
        q_own, grad_own, grad_q = q_own[:, queries], grad_own[:, queries], grad_q[:, queries]
        p = _probabilities(q_own, k_own, bias[own[1], queries])
        grad_v.baddbmm_(p.mT, grad_own)
        grad_logits = torch.ops.aten._softmax_backward_data(grad_own @ v_own.mT, p, -1, p.dtype)
        grad_bias[own[1], queries] += grad_logits.view(-1, *bias[own[1], queries].shape).sum(0)
        torch.bmm(grad_logits, k_own, out=grad_q)
        grad_k.baddbmm_(grad_logits.mT, q_own)
    return grads


def _probabilities(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    """Compute softmax(q k^T + bias), (r nH, N', N), of queries (r nH, N', d); bias (nH, N', N)."""
    logits = q @ k.mT
    logits.view(-1, *bias.shape).add_(bias)
    return torch.softmax(logits, -1, out=logits)


def _portions(q: Tensor, bias: Tensor) -> Iterator[tuple[tuple[slice, slice], slice]]:
    """Yield slices of windows, heads and queries whose logits fit the budget."""
    windows, num_heads, tokens, _ = q.shape
    rows = max(1, LOGITS_BYTES // (bias.element_size() * tokens))
    some_queries = min(tokens, rows)
    some_heads = min(num_heads, max(1, rows // tokens))
    some_windows = max(1, rows // (tokens * num_heads))
    for r in _slices(windows, some_windows):
        for h in _slices(num_heads, some_heads):
            for i in _slices(tokens, some_queries):
                yield (r, h), i


def _slices(length: int, step: int) -> Iterator[slice]:
    step = math.ceil(length / math.ceil(length / step))  # as even as possible
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _flat(x: Tensor) -> Tensor:
    """(r, nH', ...) -> (r nH', ...): a view, as one of the two axes is whole or of length 1."""
    return x.flatten(0, 1)
