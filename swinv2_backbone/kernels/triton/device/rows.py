"""Device kernels over rows of tokens, see ../rows.py."""
# Not typed: values on the device have no Python types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from swinv2_backbone.kernels.parameters import LAYER_NORM_EPS

_EPS = tl.constexpr(LAYER_NORM_EPS)


@triton.jit
def _block(rows, columns, tokens, channels):
    """Memory offsets of a block, and the mask of those inside the tensor."""
    at = rows.to(tl.int64)[:, None] * channels + columns[None, :]
    return at, (rows < tokens)[:, None] & (columns < channels)[None, :]


@triton.jit
def _standardize(x, inside, channels):
    """Rows standardized to mean 0 and variance 1, and their reciprocal standard deviations."""
    centered = tl.where(inside, x - (tl.sum(x, 1) / channels)[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centered * centered, 1) / channels + _EPS)
    return centered * scale[:, None], scale


@triton.jit(do_not_specialize=("tokens",))  # channels are a multiple of 32
def add_norm(
    x, branch, weight, bias, drop_path, out, rounded, tokens, channels,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, DROP_PATH: tl.constexpr, ROUND: tl.constexpr,
):  # fmt: skip
    """One block of rows of ``x + drop_path * LayerNorm(branch)``."""
    rows, columns = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    at, inside = _block(rows, columns, tokens, channels)
    y = tl.load(branch + at, mask=inside, other=0.0).to(tl.float32)
    unit, _ = _standardize(y, inside, channels)
    w = tl.load(weight + columns, mask=columns < channels, other=0.0).to(tl.float32)
    b = tl.load(bias + columns, mask=columns < channels, other=0.0).to(tl.float32)
    normed = unit * w[None, :] + b[None, :]
    if DROP_PATH:
        normed *= tl.load(drop_path + rows, mask=rows < tokens, other=0.0).to(tl.float32)[:, None]
    total = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) + normed
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)
    if ROUND:
        tl.store(rounded + at, total.to(rounded.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=("tokens", "programs"))
def add_norm_backward(
    grad, more, branch, weight, drop_path, grad_total, grad_branch, sums,
    tokens, channels, programs,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, DROP_PATH: tl.constexpr, MORE: tl.constexpr,
):  # fmt: skip
    """The gradients of blocks of rows, and their sums over these rows."""
    columns = tl.arange(0, WIDTH)
    w = tl.load(weight + columns, mask=columns < channels, other=0.0).to(tl.float32)
    by_weight = tl.zeros([ROWS, WIDTH], tl.float32)  # summed over rows at the end
    by_bias = tl.zeros([ROWS, WIDTH], tl.float32)
    by_branch = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(tl.program_id(0) * ROWS, tokens, programs * ROWS):
        rows = start + tl.arange(0, ROWS)
        at, inside = _block(rows, columns, tokens, channels)
        g = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
        if MORE:
            g += tl.load(more + at, mask=inside, other=0.0).to(tl.float32)
            tl.store(grad_total + at, g.to(grad_total.dtype.element_ty), mask=inside)
        if DROP_PATH:
            g *= tl.load(drop_path + rows, mask=rows < tokens, other=0.0).to(tl.float32)[:, None]
        y = tl.load(branch + at, mask=inside, other=0.0).to(tl.float32)
        unit, scale = _standardize(y, inside, channels)
        by_weight += g * unit
        by_bias += g
        g *= w[None, :]
        radial = tl.sum(g * unit, 1) / channels
        mean = tl.sum(g, 1) / channels
        d_branch = (g - mean[:, None] - unit * radial[:, None]) * scale[:, None]
        d_branch = tl.where(inside, d_branch, 0.0)
        by_branch += d_branch
        tl.store(grad_branch + at, d_branch.to(grad_branch.dtype.element_ty), mask=inside)
    sums += tl.program_id(0) * 3 * channels + columns
    tl.store(sums, tl.sum(by_weight, 0), mask=columns < channels)
    tl.store(sums + channels, tl.sum(by_bias, 0), mask=columns < channels)
    tl.store(sums + 2 * channels, tl.sum(by_branch, 0), mask=columns < channels)


@triton.jit(do_not_specialize=("tokens", "programs"))
def gelu_backward(
    hidden, grad, activated, sums, tokens, width, programs,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gradient of GELU in a column of blocks, and its sum over their rows."""
    blocks = width // COLUMNS
    columns = tl.program_id(0) % blocks * COLUMNS + tl.arange(0, COLUMNS)
    program = tl.program_id(0) // blocks
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(program * ROWS, tokens, programs * ROWS):
        at, inside = _block(start + tl.arange(0, ROWS), columns, tokens, width)
        h = tl.load(hidden + at, mask=inside, other=0.0).to(tl.float32)
        share = 0.5 * (1 + tl.erf(h * 0.7071067811865476))  # the normal distribution function at h
        density = 0.3989422804014327 * tl.exp(-0.5 * h * h)
        tl.store(activated + at, (h * share).to(activated.dtype.element_ty), mask=inside)
        g = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32) * (share + h * density)
        tl.store(grad + at, g.to(grad.dtype.element_ty), mask=inside)
        total += g
    tl.store(sums + program * width + columns, tl.sum(total, 0))
