"""What stands between the matrix products of a block, as Triton kernels over rows of tokens.

Norms with their residuals, and the gradient of GELU with the sums that the gradient of a bias is:
each reads and writes its tensors once, computes in float32 and rounds at the end.  (They are bound
by memory, as is all of a block but its products.)

Sums over tokens are added up by PROGRAMS programs, then over these, in the same order in every run.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from swinv2_backbone.kernels.choose import LAYER_NORM_EPS
from swinv2_backbone.kernels.triton.launch import cdiv, launch

TILE = 4096  # numbers that a program has in registers at a time
TILE_BACKWARD = 2048  # where it has more of them
PROGRAMS = 528  # that add up: some for each of the 100 to 150 multiprocessors of a large GPU
COLUMNS = 128  # of a tile of the hidden layer, whose width is a multiple of it

_EPS = tl.constexpr(LAYER_NORM_EPS)


@triton.jit
def _tile(rows, columns, tokens, channels):
    """Offsets of a tile, and which of them are there."""
    at = rows.to(tl.int64)[:, None] * channels + columns[None, :]
    return at, (rows < tokens)[:, None] & (columns < channels)[None, :]


@triton.jit
def _unit(x, there, channels):
    """Rows of mean 0 and variance 1, and 1 over their standard deviations."""
    centred = tl.where(there, x - (tl.sum(x, 1) / channels)[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 1) / channels + _EPS)
    return centred * scale[:, None], scale


@triton.jit(do_not_specialize=("tokens",))  # channels are a multiple of 32
def _add_norm(
    x, branch, weight, bias, keep, out, rounded, tokens, channels,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, KEEP: tl.constexpr, ROUND: tl.constexpr,
):  # fmt: skip
    rows, columns = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    at, there = _tile(rows, columns, tokens, channels)
    unit, _ = _unit(tl.load(branch + at, mask=there, other=0.0).to(tl.float32), there, channels)
    w = tl.load(weight + columns, mask=columns < channels, other=0.0).to(tl.float32)
    b = tl.load(bias + columns, mask=columns < channels, other=0.0).to(tl.float32)
    normed = unit * w[None, :] + b[None, :]
    if KEEP:
        normed *= tl.load(keep + rows, mask=rows < tokens, other=0.0).to(tl.float32)[:, None]
    total = tl.load(x + at, mask=there, other=0.0).to(tl.float32) + normed
    tl.store(out + at, total.to(out.dtype.element_ty), mask=there)
    if ROUND:
        tl.store(rounded + at, total.to(rounded.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=("tokens", "programs"))
def _add_norm_backward(
    grad, more, branch, weight, keep, grad_total, grad_branch, sums, tokens, channels, programs,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, KEEP: tl.constexpr, MORE: tl.constexpr,
):  # fmt: skip
    columns = tl.arange(0, WIDTH)
    w = tl.load(weight + columns, mask=columns < channels, other=0.0).to(tl.float32)
    by_weight = tl.zeros([ROWS, WIDTH], tl.float32)  # summed over rows in the end
    by_bias = tl.zeros([ROWS, WIDTH], tl.float32)
    by_branch = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(tl.program_id(0) * ROWS, tokens, programs * ROWS):
        rows = start + tl.arange(0, ROWS)
        at, there = _tile(rows, columns, tokens, channels)
        g = tl.load(grad + at, mask=there, other=0.0).to(tl.float32)
        if MORE:
            g += tl.load(more + at, mask=there, other=0.0).to(tl.float32)
            tl.store(grad_total + at, g.to(grad_total.dtype.element_ty), mask=there)
        if KEEP:
            g *= tl.load(keep + rows, mask=rows < tokens, other=0.0).to(tl.float32)[:, None]
        y = tl.load(branch + at, mask=there, other=0.0).to(tl.float32)
        unit, scale = _unit(y, there, channels)
        by_weight += g * unit
        by_bias += g
        g *= w[None, :]
        radial = tl.sum(g * unit, 1) / channels
        mean = tl.sum(g, 1) / channels
        d_branch = (g - mean[:, None] - unit * radial[:, None]) * scale[:, None]
        d_branch = tl.where(there, d_branch, 0.0)
        by_branch += d_branch
        tl.store(grad_branch + at, d_branch.to(grad_branch.dtype.element_ty), mask=there)
    sums += tl.program_id(0) * 3 * channels + columns
    tl.store(sums, tl.sum(by_weight, 0), mask=columns < channels)
    tl.store(sums + channels, tl.sum(by_bias, 0), mask=columns < channels)
    tl.store(sums + 2 * channels, tl.sum(by_branch, 0), mask=columns < channels)


@triton.jit(do_not_specialize=("tokens", "programs"))
def _gelu_backward(
    hidden, grad, activated, sums, tokens, width, programs,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    blocks = width // COLUMNS
    columns = tl.program_id(0) % blocks * COLUMNS + tl.arange(0, COLUMNS)
    program = tl.program_id(0) // blocks
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(program * ROWS, tokens, programs * ROWS):
        at, there = _tile(start + tl.arange(0, ROWS), columns, tokens, width)
        h = tl.load(hidden + at, mask=there, other=0.0).to(tl.float32)
        share = 0.5 * (1 + tl.erf(h * 0.7071067811865476))  # the normal distribution up to h
        density = 0.3989422804014327 * tl.exp(-0.5 * h * h)
        tl.store(activated + at, (h * share).to(activated.dtype.element_ty), mask=there)
        g = tl.load(grad + at, mask=there, other=0.0).to(tl.float32) * (share + h * density)
        tl.store(grad + at, g.to(grad.dtype.element_ty), mask=there)
        total += g
    tl.store(sums + program * width + columns, tl.sum(total, 0))


def add_norm(
    x: Tensor,
    branch: Tensor,
    weight: Tensor,
    bias: Tensor,
    keep: Tensor | None,
    rounded: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """``x + keep * LayerNorm(branch)``, and the same in the dtype ``rounded``: (T, C) both.

    Args:
        x, branch: (T, C); the result has the dtype of ``x``.
        weight, bias: (C,), of the norm.
        keep: (T, 1) or None.
        rounded: None or the dtype of ``x``: the second result is the first.
    """
    (tokens, channels), out = x.shape, torch.empty_like(x)
    rounds = rounded not in (None, x.dtype)
    second = torch.empty_like(x, dtype=rounded) if rounds else out
    rows, width = _tile_size(channels, TILE)
    launch(
        _add_norm,
        cdiv(tokens, rows),
        (x, branch, weight, bias, x if keep is None else keep, out, second),
        (tokens, channels),
        (rows, width, keep is not None, rounds),
    )
    return out, second


class NormGradients(NamedTuple):
    """Of :func:`add_norm`; the last is the sum of ``branch`` over tokens."""

    x: Tensor  # (T, C)
    branch: Tensor  # (T, C)
    weight: Tensor  # (C,) float32, as the next
    bias: Tensor
    branch_sum: Tensor


def add_norm_backward(
    grad: Tensor, more: Tensor | None, branch: Tensor, weight: Tensor, keep: Tensor | None
) -> NormGradients:
    """The gradients of :func:`add_norm` whose result has the gradient ``grad + more``."""
    tokens, channels = grad.shape
    total = grad if more is None else torch.empty_like(grad)
    grad_branch = torch.empty_like(branch)
    rows, width = _tile_size(channels, TILE_BACKWARD)
    programs = min(PROGRAMS, cdiv(tokens, rows))
    sums = grad.new_empty(programs, 3 * channels, dtype=torch.float32)
    more_or, keep_or = (grad if given is None else given for given in (more, keep))
    launch(
        _add_norm_backward,
        programs,
        (grad, more_or, branch, weight, keep_or, total, grad_branch, sums),
        (tokens, channels, programs),
        (rows, width, keep is not None, more is not None),
        num_warps=8,
    )
    return NormGradients(total, grad_branch, *sums.sum(0).view(3, channels).unbind())


def gelu_backward(hidden: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """``gelu(hidden)`` (T, H) and, from the gradient of that, the gradient's sum over tokens (H,).

    ``grad`` (T, H) BECOMES the gradient of ``hidden``.
    """
    tokens, width = hidden.shape
    activated = torch.empty_like(hidden)
    rows = TILE_BACKWARD // COLUMNS
    programs = min(cdiv(PROGRAMS, width // COLUMNS), cdiv(tokens, rows))
    sums = hidden.new_empty(programs, width, dtype=torch.float32)
    launch(
        _gelu_backward,
        programs * (width // COLUMNS),
        (hidden, grad, activated, sums),
        (tokens, width, programs),
        (rows, COLUMNS),
        num_warps=8,
    )
    return activated, sums.sum(0)


@cache
def _tile_size(channels: int, tile: int) -> tuple[int, int]:
    """Rows of a tile, and its width, both powers of two."""
    width = triton.next_power_of_2(channels)
    return max(1, tile // width), width
