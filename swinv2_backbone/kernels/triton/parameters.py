"""The parameters of a block made ready, as Triton kernels: position bias, scale, bias of qkv.

They are small, and what takes long is to launch a dozen kernels for them: here it is one for each.
Bias and gradients are computed in float64, as in ``position_bias.py``.

Legend: nH heads; O offsets of a window; K hidden units of the MLP; a share is 1 / 16 of a bias.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from swinv2_backbone.attention import MAX_LOGIT_SCALE
from swinv2_backbone.kernels.parameters import BlockParameters
from swinv2_backbone.kernels.triton.launch import cdiv, launch
from swinv2_backbone.position_bias import HIDDEN, offset_grid
from swinv2_backbone.windows import Size

FEW, MANY = 8, 64  # offsets at a time: with all hidden units, with UNITS of them
UNITS = 16

_MOST = tl.constexpr(MAX_LOGIT_SCALE)
_kernel = triton.jit(do_not_specialize=("count", "heads", "channels"))


@triton.jit
def _double(x):
    return x.to(tl.float32).to(tl.float64)  # in two steps, for the interpreter's bfloat16


@triton.jit
def _hidden(offsets, weight1, bias1, at, there, unit):
    """(offsets, units) and the two coordinates of the offsets."""
    t_h = tl.load(offsets + 2 * at, mask=there, other=0.0)
    t_w = tl.load(offsets + 2 * at + 1, mask=there, other=0.0)
    by_h = _double(tl.load(weight1 + 2 * unit))
    by_w = _double(tl.load(weight1 + 2 * unit + 1))
    constant = _double(tl.load(bias1 + unit))
    inner = t_h[:, None] * by_h[None, :] + t_w[:, None] * by_w[None, :] + constant[None, :]
    return tl.maximum(inner, 0.0), t_h, t_w


@triton.jit
def _shares(offsets, weight1, bias1, weight2, head, at, there, K: tl.constexpr):
    unit = tl.arange(0, K)
    hidden, _, _ = _hidden(offsets, weight1, bias1, at, there, unit)
    weight = _double(tl.load(weight2 + head * K + unit))
    return 1 / (1 + tl.exp(-tl.sum(hidden * weight[None, :], 1)))


@_kernel
def _bias(
    offsets, weight1, bias1, weight2, table, heads, count, K: tl.constexpr, FEW: tl.constexpr
):  # fmt: skip
    head = tl.program_id(0) % heads
    at = tl.program_id(0) // heads * FEW + tl.arange(0, FEW)
    share = _shares(offsets, weight1, bias1, weight2, head, at, at < count, K)
    tl.store(
        table + head * count + at,
        (16 * share).to(tl.float32).to(table.dtype.element_ty),
        mask=at < count,
    )


@_kernel
def _bias_backward(
    offsets, weight1, bias1, weight2, grad, logit_scale, grad_scale, by_sum, grad_logit_scale,
    heads, count, K: tl.constexpr, FEW: tl.constexpr,
):  # fmt: skip
    """The gradient of what the sigmoid is taken of, and that of the logarithm of the scale."""
    head, block = tl.program_id(0) % heads, tl.program_id(0) // heads
    at = block * FEW + tl.arange(0, FEW)
    share = _shares(offsets, weight1, bias1, weight2, head, at, at < count, K)
    given = _double(tl.load(grad + head * count + at, mask=at < count, other=0.0))
    tl.store(by_sum + head * count + at, given * 16 * share * (1 - share), mask=at < count)
    if block == 0:
        logarithm = _double(tl.load(logit_scale + head))
        slope = tl.where(logarithm <= _MOST, tl.exp(tl.minimum(logarithm, _MOST)), 0.0)
        result = slope * _double(tl.load(grad_scale + head))
        tl.store(
            grad_logit_scale + head, result.to(tl.float32).to(grad_logit_scale.dtype.element_ty)
        )


@_kernel
def _weight2_backward(
    offsets, weight1, bias1, by_sum, grad_weight2, heads, count,
    K: tl.constexpr, MANY: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0) % heads
    unit = tl.program_id(0) // heads * UNITS + tl.arange(0, UNITS)
    total = tl.zeros([UNITS], tl.float64)
    for start in range(0, count, MANY):
        at = start + tl.arange(0, MANY)
        hidden, _, _ = _hidden(offsets, weight1, bias1, at, at < count, unit)
        given = tl.load(by_sum + head * count + at, mask=at < count, other=0.0)
        total += tl.sum(given[:, None] * hidden, 0)
    tl.store(grad_weight2 + head * K + unit, total.to(tl.float32).to(grad_weight2.dtype.element_ty))


@_kernel
def _weight1_backward(
    offsets, weight1, bias1, weight2, by_sum, grad_weight1, grad_bias1, heads, count,
    K: tl.constexpr, MANY: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    by_h = tl.zeros([UNITS], tl.float64)
    by_w = tl.zeros([UNITS], tl.float64)
    by_constant = tl.zeros([UNITS], tl.float64)
    for start in range(0, count, MANY):
        at = start + tl.arange(0, MANY)
        hidden, t_h, t_w = _hidden(offsets, weight1, bias1, at, at < count, unit)
        by_hidden = tl.zeros([MANY, UNITS], tl.float64)
        for head in range(heads):
            given = tl.load(by_sum + head * count + at, mask=at < count, other=0.0)
            weight = _double(tl.load(weight2 + head * K + unit))
            by_hidden += given[:, None] * weight[None, :]
        by_hidden = tl.where(hidden > 0, by_hidden, 0.0)
        by_h += tl.sum(by_hidden * t_h[:, None], 0)
        by_w += tl.sum(by_hidden * t_w[:, None], 0)
        by_constant += tl.sum(by_hidden, 0)
    tl.store(grad_weight1 + 2 * unit, by_h.to(tl.float32).to(grad_weight1.dtype.element_ty))
    tl.store(grad_weight1 + 2 * unit + 1, by_w.to(tl.float32).to(grad_weight1.dtype.element_ty))
    tl.store(grad_bias1 + unit, by_constant.to(tl.float32).to(grad_bias1.dtype.element_ty))


@_kernel
def _scale_and_bias(
    logit_scale, q_bias, v_bias, scale, qkv_bias, heads, channels, BLOCK: tl.constexpr
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    logarithm = _double(tl.load(logit_scale + at, mask=at < heads, other=0.0))
    found = tl.exp(tl.minimum(logarithm, _MOST))
    tl.store(scale + at, found.to(tl.float32).to(scale.dtype.element_ty), mask=at < heads)
    q = tl.load(q_bias + at, mask=at < channels, other=0.0)
    v = tl.load(v_bias + at - 2 * channels, mask=at >= 2 * channels, other=0.0)
    both = tl.where(at < channels, q, v)  # of keys 0
    tl.store(
        qkv_bias + at, both.to(tl.float32).to(qkv_bias.dtype.element_ty), mask=at < 3 * channels
    )


@lru_cache(maxsize=64)
def _offsets(window: Size, pretrained: Size, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # outlives this forward
        return offset_grid(window, pretrained, device, torch.float64).contiguous()


def bias_table(p: BlockParameters, window: Size, pretrained: Size) -> Tensor:
    """(nH, O) float32, what ``PositionBias.table`` gives."""
    offsets, heads = _offsets(window, pretrained, p.cpb1.device), p.logit_scale.numel()
    table = offsets.new_empty(heads, len(offsets), dtype=torch.float32)
    launch(
        _bias,
        heads * cdiv(len(offsets), FEW),
        (offsets, p.cpb1, p.cpb1_bias, p.cpb2, table),
        (heads, len(offsets)),
        (HIDDEN, FEW),
    )
    return table


def small_gradients(
    by_table: Tensor, by_scale: Tensor, p: BlockParameters, window: Size, pretrained: Size
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of ``logit_scale`` and the MLP, from those of the position bias (nH, O) and scale (nH,)."""
    offsets, heads = _offsets(window, pretrained, p.cpb1.device), p.logit_scale.numel()
    numbers, inputs = (heads, len(offsets)), (offsets, p.cpb1, p.cpb1_bias)
    by_sum = offsets.new_empty(heads, len(offsets))
    likes = p.logit_scale, p.cpb1, p.cpb1_bias, p.cpb2
    by_logarithm, by_cpb1, by_cpb1_bias, by_cpb2 = (torch.empty_like(like) for like in likes)
    launch(
        _bias_backward,
        heads * cdiv(len(offsets), FEW),
        (*inputs, p.cpb2, by_table, p.logit_scale, by_scale, by_sum, by_logarithm),
        numbers,
        (HIDDEN, FEW),
    )
    constants, blocks = (HIDDEN, MANY, UNITS), HIDDEN // UNITS
    launch(_weight2_backward, heads * blocks, (*inputs, by_sum, by_cpb2), numbers, constants)
    outputs = by_cpb1, by_cpb1_bias
    launch(_weight1_backward, blocks, (*inputs, p.cpb2, by_sum, *outputs), numbers, constants)
    return by_logarithm, by_cpb1, by_cpb1_bias, by_cpb2


def scale_and_qkv_bias(p: BlockParameters, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(nH,) float32 and, in ``dtype``, (3C,) with nothing for the keys."""
    heads, channels = p.logit_scale.numel(), len(p.q_bias)
    scale = p.logit_scale.new_empty(heads, dtype=torch.float32)
    qkv_bias = p.q_bias.new_empty(3 * channels, dtype=dtype)
    tensors, block = (p.logit_scale, p.q_bias, p.v_bias, scale, qkv_bias), 256
    programs = cdiv(3 * channels, block)
    launch(_scale_and_bias, programs, tensors, (heads, channels), (block,))
    return scale, qkv_bias
