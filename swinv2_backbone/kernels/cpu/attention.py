"""Scaled cosine attention of one strip, forward and backward, rectangle by rectangle.

The same function as ``attention.cosine_attention`` between tokens that share a rectangle (see
segments.py).  Tokens come and go in map order: bringing them to their rectangles is part of the
multiplication by the inverse norms.  Logits are computed for as many rectangles, heads or queries
at a time as fit into a budget: the paper's "sequential self-attention", for windows of any size.

Legend: n tokens of the strip; R rectangles of one size; N tokens of a rectangle; nH heads; d
channels a head; C = nH * d.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from swinv2_backbone.kernels.tiles import Group, Strip
from swinv2_backbone.position_bias import bias_matrix, offset_index, offsets_within
from swinv2_backbone.windows import Size

EPS = 1e-6  # of the norm of a query or key, as in attention.py
LOGITS_BYTES = 3 * 2**19  # of the logits held at a time: what the caches of one or two cores hold
SMALL = 200  # tokens; PyTorch's fused attention is the faster one for larger rectangles


class RectangleBias:
    """The bias of rectangles of any size (h, w) within a ``window``, from the table of offsets."""

    def __init__(self, table: Tensor, window: Size):
        self.table, self.window = table, window
        self.matrices: dict[Size, Tensor] = {}

    def __getitem__(self, size: Size) -> Tensor:
        """(nH, N, N), from query i to key j."""
        if size not in self.matrices:
            self.matrices[size] = bias_matrix(offsets_within(self.table, self.window, size))
        return self.matrices[size]

    def gradient(self, of_matrices: dict[Size, Tensor]) -> Tensor:
        """(nH, offsets) of the table, from those (nH, N, N) of the matrices."""
        total = torch.zeros_like(self.table)
        for size, of_matrix in of_matrices.items():
            offsets = offsets_within(total, self.window, size)
            index = offset_index(size, total.device)
            own = torch.zeros_like(offsets).flatten(1).index_add_(1, index, of_matrix.flatten(1))
            offsets += own.view_as(offsets)
        return total


def strip_attention(qkv: Tensor, scale: Tensor, bias: RectangleBias, strip: Strip) -> Tensor:
    """(n, 3C) -> (n, C), in the dtype of ``qkv``.

    Args:
        qkv: the queries, keys and values of the strip's tokens.
        scale: (nH, 1), float32 or float64, which is also what attention is computed in.
        bias: of rectangles, in the dtype of ``scale``.
    """
    heads = qkv.to(scale.dtype).unflatten(1, (3 * len(scale), -1))
    factors, _ = _cosine_factors(heads, scale)
    out = torch.empty_like(heads[:, : len(scale)], memory_format=torch.contiguous_format)
    for group in strip.groups:
        attended = _attend(*_seat(heads, factors, group), bias[group.size])
        _take_home(attended, out, group)
    return out.flatten(1).to(qkv.dtype)


def strip_attention_backward(
    grad: Tensor,
    qkv: Tensor,
    scale: Tensor,
    bias: RectangleBias,
    strip: Strip,
    grad_scale: Tensor,
    grad_bias: dict[Size, Tensor],
) -> Tensor:
    """The gradient (n, 3C) of ``qkv`` from that (n, C) of the result.

    The gradients of ``scale`` and of the bias matrices are added to ``grad_scale`` and
    ``grad_bias``.
    """
    num_heads = len(scale)
    heads = qkv.to(scale.dtype).unflatten(1, (3 * num_heads, -1))
    grad = grad.to(scale.dtype).unflatten(1, (num_heads, -1))
    factors, norms = _cosine_factors(heads, scale)
    grad_heads = torch.empty_like(heads)
    for group in strip.groups:
        matrix = bias[group.size]
        if group.size not in grad_bias:
            grad_bias[group.size] = torch.zeros_like(matrix)
        q, k, v = _seat(heads, factors, group)
        grad_out = group.rectangles(grad).contiguous().view_as(q)
        grads = _attend_backward(grad_out, q, k, v, matrix, grad_bias[group.size])
        _take_home(grads, grad_heads, group)
    # y = factor * x, factor = scale / |x|: dx = factor * (dy - x (x . dy) / |x|^2)
    x, dy, factor = (each[:, : 2 * num_heads] for each in (heads, grad_heads, factors))
    inner = (x * dy).sum(dim=2, keepdim=True)
    grad_scale += (inner[:, :num_heads] / norms[:, :num_heads].clamp(min=EPS)).sum(dim=0)
    inner = torch.where(norms > EPS, inner / norms.square(), 0)
    dy.addcmul_(x, inner, value=-1).mul_(factor)
    return grad_heads.flatten(1).to(qkv.dtype)


def _cosine_factors(heads: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 3 nH, 1): scale / |q|, 1 / |k| and 1, what (n, 3 nH, d) heads are multiplied by; and
    (n, 2 nH, 1): the norms."""
    num_heads = len(scale)
    norms = torch.linalg.vector_norm(heads[:, : 2 * num_heads], dim=2, keepdim=True)
    factors = norms.new_ones(len(heads), 3 * num_heads, 1)
    torch.reciprocal(norms.clamp(min=EPS), out=factors[:, : 2 * num_heads])
    factors[:, :num_heads] *= scale
    return factors, norms


def _seat(heads: Tensor, factors: Tensor, group: Group) -> Tensor:
    """(3, R, nH, N, d): the queries, keys and values of a group, ready for their products."""
    heads, factors = group.rectangles(heads, parts=3), group.rectangles(factors, parts=3)
    num_heads, h, w, channels = heads.shape[4:]
    seats = factors.new_empty(3, group.count, num_heads, h * w, channels)
    torch.mul(heads, factors, out=seats.view(heads.shape))
    return seats


def _take_home(seats: Tensor, heads: Tensor, group: Group) -> None:
    """Write (parts, R, nH, N, d) into the heads (n, parts * nH, d) of the strip's tokens."""
    parts = 3 if seats.ndim == 5 else 1
    heads = group.rectangles(heads, parts)
    heads.copy_(seats.view(heads.shape))


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k^T + bias) v: (R, nH, N, d), with a bias (nH, N, N)."""
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
    """(3, R, nH, N, d): the gradients of q, k and v; that of the bias is added to ``grad_bias``."""
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
    """softmax(q k^T + bias): (r nH, N', N) for queries (r nH, N', d) and a bias (nH, N', N)."""
    logits = q @ k.mT
    logits.view(-1, *bias.shape).add_(bias)
    return torch.softmax(logits, -1, out=logits)


def _portions(q: Tensor, bias: Tensor) -> Iterator[tuple[tuple[slice, slice], slice]]:
    """Rectangles, heads and queries to compute at a time: of whatever is larger, some of it."""
    rectangles, num_heads, tokens, _ = q.shape
    rows = max(1, LOGITS_BYTES // (bias.element_size() * tokens))
    some_queries = min(tokens, rows)
    some_heads = min(num_heads, max(1, rows // tokens))
    some_rectangles = max(1, rows // (tokens * num_heads))
    for r in _slices(rectangles, some_rectangles):
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
