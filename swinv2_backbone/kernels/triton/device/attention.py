"""Device functions of attention: slots of clipped windows, cosines, biases.

Legend: BLOCK slots of a clipped window are a block of queries or of keys; a slot without a token is
empty.  ``slots`` is a tuple: token, place and presence of every slot of a block.
"""
# Not typed: values on the device have no Python types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from functools import partial

import triton
import triton.language as tl

from swinv2_backbone.kernels.choose import TRITON_HEAD_DIM

D = tl.constexpr(TRITON_HEAD_DIM)
_EPS = tl.constexpr(1e-6)  # lower bound of the norms that q and k are divided by
_LOG2_E = tl.constexpr(1.4426950408889634)

# One binary serves images of all sizes: integers are not specialized for being 1 or a multiple of
# 16.  The width of a window is a constant, though, because dividing by a variable is slow.
kernel = partial(
    triton.jit,
    do_not_specialize=("heads", "blocks", "count", "groups", "pitch", "center"),
)


@triton.jit
def dot(a, b):
    return tl.dot(a, b, input_precision="ieee")  # float32 as float32, not as tf32


@triton.jit
def load_window(windows, index):
    """First token, map width, height and width of a clipped window."""
    at = windows + 4 * index
    return tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3)


@triton.jit
def of_program(windows, heads, blocks):
    """Head, block and window.  Adjacent programs share the block, so they read whole rows."""
    rest = tl.program_id(0) // heads
    return tl.program_id(0) % heads, rest % blocks, load_window(windows, rest // blocks)


@triton.jit
def slots_of(window, start, count, pitch, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Token, place and presence of the ``count`` slots from ``start`` on.

    Slot i is at row i // COLUMNS and column i % COLUMNS of the window.
    """
    first, map_width, height, width = window
    lane = tl.arange(0, BLOCK)
    row, column = (start + lane) // COLUMNS, (start + lane) % COLUMNS
    present = (lane < count) & (row < height) & (column < width)
    token = (first + row * map_width + column).to(tl.int64)
    return token, tl.where(present, row * pitch + column, 0), present


@triton.jit
def load_rows(source, slots, length):
    """(BLOCK, 32) of rows of ``length`` elements; 0 for empty slots."""
    at = source + (slots[0] * length)[:, None] + tl.arange(0, D)[None, :]
    return tl.load(at, mask=slots[2][:, None], other=0.0)


@triton.jit
def store_rows(target, value, slots, length):
    at = target + (slots[0] * length)[:, None] + tl.arange(0, D)[None, :]
    tl.store(at, value.to(target.dtype.element_ty), mask=slots[2][:, None])


@triton.jit
def _norm(x):
    x = x.to(tl.float32)
    return tl.sqrt(tl.sum(x * x, 1))


@triton.jit
def _inverse_norm(x):
    return 1 / tl.maximum(_norm(x), _EPS)


@triton.jit
def normalize(x):
    return x.to(tl.float32) * _inverse_norm(x)[:, None]


@triton.jit
def normalize_backward(grad, x):
    """The gradient of x from that of its direction: tangential, unless x is shorter than eps."""
    unit = normalize(x)
    radial = tl.where(_norm(x) < _EPS, 0.0, tl.sum(grad * unit, 1))
    return (grad - radial[:, None] * unit) * _inverse_norm(x)[:, None]


@triton.jit
def cosines(a, b, scale):
    """(BLOCK, BLOCK): the cosines of the rows of a and b, times ``scale``."""
    return dot(a, tl.trans(b)) * (scale * _inverse_norm(a))[:, None] * _inverse_norm(b)[None, :]


@triton.jit
def exp(x, minus):
    """exp(x - minus) by exp2, the exponential that GPUs have in hardware."""
    return tl.exp2(x * _LOG2_E - minus * _LOG2_E)


@triton.jit
def load_bias(bias, queries, keys):
    """The bias of every pair of slots; -inf for keys of empty slots.

    It must be loaded before the product that it is added to.  Then Triton converts it to the layout
    of the product, which the softmax uses.  In the other order Triton computes the softmax in both
    layouts.
    """
    places = queries[1][:, None] - keys[1][None, :]
    return tl.load(bias + places, mask=keys[2][None, :], other=float("-inf"))


@triton.jit
def places_of(pitch, shift, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """The places of the slots of a block of whole rows, ``shift`` blocks further down."""
    rows: tl.constexpr = BLOCK // COLUMNS
    lane = tl.arange(0, BLOCK)
    place = (lane // COLUMNS + shift * rows) * pitch + lane % COLUMNS
    return tl.where(lane < rows * COLUMNS, place, 0)


@triton.jit
def load_bias_of_places(bias, queries, keys, center):
    """The bias of every pair of places; arbitrary for offsets that no window has."""
    places = queries[:, None] - keys[None, :]
    return tl.load(bias + places, mask=tl.abs(places) <= center, other=0.0)
