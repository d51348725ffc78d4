"""Device kernels of the position bias, the scale and the bias of qkv, see ../parameters.py.

A share is a bias divided by 16: the sigmoid.
"""
# Not typed: values on the device have no Python types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from swinv2_backbone.attention import MAX_LOGIT_SCALE

_MAX_LOGIT_SCALE = tl.constexpr(MAX_LOGIT_SCALE)

kernel = triton.jit(do_not_specialize=("count", "heads", "channels"))


@triton.jit
def _double(x):
    return x.to(tl.float32).to(tl.float64)  # in two steps, for the interpreter's bfloat16


@triton.jit
def _hidden(offsets, weight1, bias1, at, mask, unit):
    """The hidden layer (offsets, units) and the two coordinates of the offsets."""
    t_h = tl.load(offsets + 2 * at, mask=mask, other=0.0)
    t_w = tl.load(offsets + 2 * at + 1, mask=mask, other=0.0)
    by_h = _double(tl.load(weight1 + 2 * unit))
    by_w = _double(tl.load(weight1 + 2 * unit + 1))
    constant = _double(tl.load(bias1 + unit))
    inner = t_h[:, None] * by_h[None, :] + t_w[:, None] * by_w[None, :] + constant[None, :]
    return tl.maximum(inner, 0.0), t_h, t_w


@triton.jit
def _shares(offsets, weight1, bias1, weight2, head, at, mask, K: tl.constexpr):
    unit = tl.arange(0, K)
    hidden, _, _ = _hidden(offsets, weight1, bias1, at, mask, unit)
    weight = _double(tl.load(weight2 + head * K + unit))
    return 1 / (1 + tl.exp(-tl.sum(hidden * weight[None, :], 1)))


@kernel
def bias_table(
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


@kernel
def bias_backward(
    offsets, weight1, bias1, weight2, grad, logit_scale, grad_scale, by_inner, grad_logit_scale,
    heads, count, K: tl.constexpr, FEW: tl.constexpr,
):  # fmt: skip
    """The gradients of the sigmoid's argument and of ``logit_scale``."""
    head, block = tl.program_id(0) % heads, tl.program_id(0) // heads
    at = block * FEW + tl.arange(0, FEW)
    share = _shares(offsets, weight1, bias1, weight2, head, at, at < count, K)
    given = _double(tl.load(grad + head * count + at, mask=at < count, other=0.0))
    tl.store(by_inner + head * count + at, given * 16 * share * (1 - share), mask=at < count)
    if block == 0:
        logarithm = _double(tl.load(logit_scale + head))
        found = tl.exp(tl.minimum(logarithm, _MAX_LOGIT_SCALE))
        slope = tl.where(logarithm <= _MAX_LOGIT_SCALE, found, 0.0)
        result = slope * _double(tl.load(grad_scale + head))
        tl.store(
            grad_logit_scale + head, result.to(tl.float32).to(grad_logit_scale.dtype.element_ty)
        )


@kernel
def weight2_backward(
    offsets, weight1, bias1, by_inner, grad_weight2, heads, count,
    K: tl.constexpr, MANY: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0) % heads
    unit = tl.program_id(0) // heads * UNITS + tl.arange(0, UNITS)
    total = tl.zeros([UNITS], tl.float64)
    for start in range(0, count, MANY):
        at = start + tl.arange(0, MANY)
        hidden, _, _ = _hidden(offsets, weight1, bias1, at, at < count, unit)
        given = tl.load(by_inner + head * count + at, mask=at < count, other=0.0)
        total += tl.sum(given[:, None] * hidden, 0)
    tl.store(grad_weight2 + head * K + unit, total.to(tl.float32).to(grad_weight2.dtype.element_ty))


@kernel
def weight1_backward(
    offsets, weight1, bias1, weight2, by_inner, grad_weight1, grad_bias1, heads, count,
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
            given = tl.load(by_inner + head * count + at, mask=at < count, other=0.0)
            weight = _double(tl.load(weight2 + head * K + unit))
            by_hidden += given[:, None] * weight[None, :]
        by_hidden = tl.where(hidden > 0, by_hidden, 0.0)
        by_h += tl.sum(by_hidden * t_h[:, None], 0)
        by_w += tl.sum(by_hidden * t_w[:, None], 0)
        by_constant += tl.sum(by_hidden, 0)
    tl.store(grad_weight1 + 2 * unit, by_h.to(tl.float32).to(grad_weight1.dtype.element_ty))
    tl.store(grad_weight1 + 2 * unit + 1, by_w.to(tl.float32).to(grad_weight1.dtype.element_ty))
    tl.store(grad_bias1 + unit, by_constant.to(tl.float32).to(grad_bias1.dtype.element_ty))


@kernel
def scale_and_bias(
    logit_scale, q_bias, v_bias, scale, qkv_bias, heads, channels, BLOCK: tl.constexpr
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    logarithm = _double(tl.load(logit_scale + at, mask=at < heads, other=0.0))
    found = tl.exp(tl.minimum(logarithm, _MAX_LOGIT_SCALE))
    tl.store(scale + at, found.to(tl.float32).to(scale.dtype.element_ty), mask=at < heads)
    q = tl.load(q_bias + at, mask=at < channels, other=0.0)
    v = tl.load(
        v_bias + at - 2 * channels, mask=(at >= 2 * channels) & (at < 3 * channels), other=0.0
    )
    both = tl.where(at < channels, q, v)  # 0 for keys
    tl.store(
        qkv_bias + at, both.to(tl.float32).to(qkv_bias.dtype.element_ty), mask=at < 3 * channels
    )
