"""Scaled cosine attention over the rectangles of packed tokens, as Triton kernels.

``softmax(cos(q, k) * scale + bias) v`` (paper section 3.2, equation 2) without a tensor of logits,
windows or masks: a program reads the tokens of a rectangle (``segments.py``) where they stand,
keeps a tile of the logits in registers, and writes the result to where it belongs.

- Products take q, k and v as they are, in their own dtype, and sum in float32.  The lengths of q
  and k divide the float32 product, so the cosine is that of the inputs: logits reach 116, and to
  round a normalised q or k to bfloat16 would shift them by tenths.
- The bias of query i and key j stands place(i) - place(j) from the centre of its head's table,
  where the place of row h and column w is h * (2 Mw - 1) + w.
- Backward recomputes the probabilities from the log-sum-exp of every row of logits.
- Nothing is added up by atomics, so the gradients are the same bit for bit in every run.

Legend: T tokens of the batch; nH heads; C = 32 nH channels; nR rectangles; Mh, Mw the window.  A
tile is a block of queries by a block of keys; each is BLOCK seats of a rectangle, some empty.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from swinv2_backbone.kernels.choose import TRITON_HEAD_DIM
from swinv2_backbone.kernels.self_check import check_of_attention, check_once
from swinv2_backbone.kernels.tiles import rectangles
from swinv2_backbone.kernels.triton.launch import cdiv, launch
from swinv2_backbone.windows import Size

HEAD_DIM = TRITON_HEAD_DIM

# Measured on an H100.  In float32, without tensor cores, 4 warps spill.  To prefetch pays in the
# one kernel that loads little else than q, k and v.  Kernels that add up over rectangles run about
# PROGRAMS programs, a few for each multiprocessor.
LARGEST_BLOCK = 64
PROGRAMS = 1024
WARPS = {torch.float32: 8, torch.float16: 4, torch.bfloat16: 4}
PREFETCH = {"num_stages": 2}


_D = tl.constexpr(HEAD_DIM)
_EPS = tl.constexpr(1e-6)  # q and k are divided by their length, or by this if that is smaller
_LOG2_E = tl.constexpr(1.4426950408889634)

# One binary serves all sizes of images: integers are not specialised for being 1 or a multiple of
# 16.  But the width of a window is a constant, as to divide by anything else takes long.
_kernel = partial(
    triton.jit,
    do_not_specialize=("heads", "blocks", "count", "groups", "pitch", "centre"),
)


@triton.jit
def _dot(a, b):
    return tl.dot(a, b, input_precision="ieee")  # float32 as float32, not as tf32


@triton.jit
def _rectangle(rects, index):
    """First token, map width, height and width."""
    at = rects + 4 * index
    return tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3)


@triton.jit
def _program(rects, heads, blocks):
    """Head, block and rectangle.  Neighbours share the block: together they read whole rows."""
    rest = tl.program_id(0) // heads
    return tl.program_id(0) % heads, rest % blocks, _rectangle(rects, rest // blocks)


@triton.jit
def _seats(rect, start, count, pitch, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Token, place and presence of the ``count`` seats from ``start`` on.

    Seat i is at row i // COLUMNS and column i % COLUMNS of the rectangle.
    """
    first, map_width, height, width = rect
    lane = tl.arange(0, BLOCK)
    row, column = (start + lane) // COLUMNS, (start + lane) % COLUMNS
    present = (lane < count) & (row < height) & (column < width)
    token = (first + row * map_width + column).to(tl.int64)
    return token, tl.where(present, row * pitch + column, 0), present


@triton.jit
def _load(source, seats, length):
    """(BLOCK, 32) from rows of ``length``; 0 where a seat is empty."""
    at = source + (seats[0] * length)[:, None] + tl.arange(0, _D)[None, :]
    return tl.load(at, mask=seats[2][:, None], other=0.0)


@triton.jit
def _save(target, value, seats, length):
    at = target + (seats[0] * length)[:, None] + tl.arange(0, _D)[None, :]
    tl.store(at, value.to(target.dtype.element_ty), mask=seats[2][:, None])


@triton.jit
def _norm(x):
    x = x.to(tl.float32)
    return tl.sqrt(tl.sum(x * x, 1))


@triton.jit
def _inverse_norm(x):
    return 1 / tl.maximum(_norm(x), _EPS)


@triton.jit
def _unit(x):
    return x.to(tl.float32) * _inverse_norm(x)[:, None]


@triton.jit
def _through_unit(grad, x):
    """The gradient of x from that of its unit: tangential, but where the length is below eps."""
    unit = _unit(x)
    radial = tl.where(_norm(x) < _EPS, 0.0, tl.sum(grad * unit, 1))
    return (grad - radial[:, None] * unit) * _inverse_norm(x)[:, None]


@triton.jit
def _cosines(a, b, scale):
    """(BLOCK, BLOCK): those of the rows of a and b, times ``scale``."""
    return _dot(a, tl.trans(b)) * (scale * _inverse_norm(a))[:, None] * _inverse_norm(b)[None, :]


@triton.jit
def _exp(x, minus):
    """exp(x - minus) by the one exponential that a GPU has."""
    return tl.exp2(x * _LOG2_E - minus * _LOG2_E)


@triton.jit
def _bias_of(bias, queries, keys):
    """The bias of every pair; -inf for the keys of empty seats.

    To be loaded before the product it is added to.  Triton lays values of two origins out for the
    earlier one: for the product, where the softmax is at home.  The other way round it computes
    the softmax in both layouts.
    """
    places = queries[1][:, None] - keys[1][None, :]
    return tl.load(bias + places, mask=keys[2][None, :], other=float("-inf"))


@triton.jit
def _places(pitch, shift, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """The places of the seats of a block of whole rows, ``shift`` blocks further down."""
    rows: tl.constexpr = BLOCK // COLUMNS
    lane = tl.arange(0, BLOCK)
    place = (lane // COLUMNS + shift * rows) * pitch + lane % COLUMNS
    return tl.where(lane < rows * COLUMNS, place, 0)


@triton.jit
def _bias_at(bias, queries, keys, centre):
    """The bias of every pair of places; any number for offsets that no window has."""
    places = queries[:, None] - keys[None, :]
    return tl.load(bias + places, mask=tl.abs(places) <= centre, other=0.0)


@_kernel
def _forward_whole(
    qkv, scale, table, rects, out, lse, heads, count, groups, pitch, centre,
    COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Rectangles of one tile: the bias is the same for all of them, and loaded once."""
    head, channels = tl.program_id(0) % heads, heads * _D
    q_of = qkv + head * _D
    scale, bias = tl.load(scale + head), table + head * (2 * centre + 1) + centre
    places = _places(pitch, 0, COLUMNS, BLOCK)
    biases = _bias_at(bias, places, places, centre)
    for index in range(tl.program_id(0) // heads, count, groups):
        seats = _seats(_rectangle(rects, index), 0, BLOCK, pitch, COLUMNS, BLOCK)
        q = _load(q_of, seats, 3 * channels)
        k = _load(q_of + channels, seats, 3 * channels)
        v = _load(q_of + 2 * channels, seats, 3 * channels)
        logits = tl.where(seats[2][None, :], _cosines(q, k, scale) + biases, float("-inf"))
        top = tl.max(logits, 1)
        p = _exp(logits, top[:, None])
        mass = tl.sum(p, 1)
        _save(out + head * _D, _dot(p.to(v.dtype), v) / mass[:, None], seats, channels)
        tl.store(lse + seats[0] * heads + head, top + tl.log(mass), mask=seats[2])


@_kernel
def _forward(
    qkv, scale, table, rects, out, lse, heads, blocks, pitch, centre,
    COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of queries of a rectangle and head; the softmax is online over blocks of keys."""
    head, block, rect = _program(rects, heads, blocks)
    size, channels = rect[2] * COLUMNS, heads * _D
    if block * BLOCK >= size:
        return
    q_of = qkv + head * _D
    scale, bias = tl.load(scale + head), table + head * (2 * centre + 1) + centre
    queries = _seats(rect, block * BLOCK, BLOCK, pitch, COLUMNS, BLOCK)
    q = _load(q_of, queries, 3 * channels)
    top = tl.full([BLOCK], float("-inf"), tl.float32)
    mass = tl.zeros([BLOCK], tl.float32)
    total = tl.zeros([BLOCK, _D], tl.float32)
    for start in range(0, size, BLOCK):
        keys = _seats(rect, start, BLOCK, pitch, COLUMNS, BLOCK)
        biases = _bias_of(bias, queries, keys)
        k = _load(q_of + channels, keys, 3 * channels)
        v = _load(q_of + 2 * channels, keys, 3 * channels)
        logits = _cosines(q, k, scale) + biases
        new_top = tl.maximum(top, tl.max(logits, 1))
        p, fade = _exp(logits, new_top[:, None]), _exp(top, new_top)
        mass = mass * fade + tl.sum(p, 1)
        total = total * fade[:, None] + _dot(p.to(v.dtype), v)
        top = new_top
    _save(out + head * _D, total / mass[:, None], queries, channels)
    tl.store(lse + queries[0] * heads + head, top + tl.log(mass), mask=queries[2])


@_kernel
def _backward_queries(
    qkv, scale, table, rects, out, lse, grad, grad_qkv, delta,
    heads, blocks, pitch, centre, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of one block of q.  Also ``delta``, the sum of p * d p of every query.

    That sum is known beforehand as the product of the result and its gradient, but only as exactly
    as the result was rounded.  What it lacks is found on the way: then the gradients of the logits
    of a query sum to zero, without which those of scale and bias would be off by per cents.
    """
    head, block, rect = _program(rects, heads, blocks)
    size, channels = rect[2] * COLUMNS, heads * _D
    if block * BLOCK >= size:
        return
    q_of = qkv + head * _D
    scale, bias = tl.load(scale + head), table + head * (2 * centre + 1) + centre
    queries = _seats(rect, block * BLOCK, BLOCK, pitch, COLUMNS, BLOCK)
    q = _load(q_of, queries, 3 * channels)
    d_out = _load(grad + head * _D, queries, channels)
    o = _load(out + head * _D, queries, channels)
    mean = tl.sum(o.to(tl.float32) * d_out.to(tl.float32), 1)
    at = queries[0] * heads + head
    row_lse = tl.load(lse + at, mask=queries[2], other=float("inf"))
    lacking = tl.zeros([BLOCK], tl.float32)
    d_q = tl.zeros([BLOCK, _D], tl.float32)
    for start in range(0, size, BLOCK):
        keys = _seats(rect, start, BLOCK, pitch, COLUMNS, BLOCK)
        biases = _bias_of(bias, queries, keys)
        k = _load(q_of + channels, keys, 3 * channels)
        v = _load(q_of + 2 * channels, keys, 3 * channels)
        logits = _cosines(q, k, scale) + biases
        p = _exp(logits, row_lse[:, None])
        d_logits = p * (_dot(d_out, tl.trans(v)) - mean[:, None])
        lacking += tl.sum(d_logits, 1)
        d_q += _dot(d_logits.to(q.dtype), _unit(k).to(k.dtype))
    tl.store(delta + at, mean + lacking, mask=queries[2])
    _save(grad_qkv + head * _D, _through_unit(scale * d_q, q), queries, 3 * channels)


@_kernel
def _backward_keys(
    qkv, scale, table, rects, lse, grad, grad_qkv, delta,
    heads, blocks, pitch, centre, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradients of one block of k and v.  The tiles here are keys by queries."""
    head, block, rect = _program(rects, heads, blocks)
    size, channels = rect[2] * COLUMNS, heads * _D
    if block * BLOCK >= size:
        return
    q_of, d_q_of = qkv + head * _D, grad_qkv + head * _D
    scale, bias = tl.load(scale + head), table + head * (2 * centre + 1) + centre
    keys = _seats(rect, block * BLOCK, BLOCK, pitch, COLUMNS, BLOCK)
    k = _load(q_of + channels, keys, 3 * channels)
    v = _load(q_of + 2 * channels, keys, 3 * channels)
    d_k = tl.zeros([BLOCK, _D], tl.float32)
    d_v = tl.zeros([BLOCK, _D], tl.float32)
    for start in range(0, size, BLOCK):
        queries = _seats(rect, start, BLOCK, pitch, COLUMNS, BLOCK)
        biases = tl.trans(_bias_of(bias, queries, keys))
        q = _load(q_of, queries, 3 * channels)
        d_out = _load(grad + head * _D, queries, channels)
        at = queries[0] * heads + head
        row_lse = tl.load(lse + at, mask=queries[2], other=float("inf"))
        mean = tl.load(delta + at, mask=queries[2], other=0.0)
        logits = _cosines(k, q, scale) + biases
        p = _exp(logits, row_lse[None, :])
        d_logits = p * (_dot(v, tl.trans(d_out)) - mean[None, :])
        d_k += _dot(d_logits.to(q.dtype), _unit(q).to(q.dtype))
        d_v += _dot(p.to(d_out.dtype), d_out)
    _save(d_q_of + channels, _through_unit(scale * d_k, k), keys, 3 * channels)
    _save(d_q_of + 2 * channels, d_v, keys, 3 * channels)


@_kernel
def _backward_tiles(
    qkv, scale, table, rects, lse, grad, grad_qkv, delta, tiles, grad_scale,
    heads, count, groups, blocks, pitch, centre,
    COLUMNS: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """The gradients of the logits of all tiles that look alike, and of the scale, in one tile.

    Blocks are whole rows here.  Tiles whose block of queries is ``shift`` blocks below their block
    of keys have the same offsets at the same seats, wherever they are and in every rectangle.

    If one tile is a WHOLE rectangle, all is at hand to write the gradients of q, k and v as well,
    and to need no ``delta``: the other kernels of backward are not run.
    """
    rest, channels = tl.program_id(0) // heads, heads * _D
    head, shift = tl.program_id(0) % heads, rest % (2 * blocks - 1) - (blocks - 1)
    q_of, d_q_of = qkv + head * _D, grad_qkv + head * _D
    scale, bias = tl.load(scale + head), table + head * (2 * centre + 1) + centre
    rows: tl.constexpr = BLOCK // COLUMNS
    seats: tl.constexpr = rows * COLUMNS
    places = _places(pitch, 0, COLUMNS, BLOCK)
    biases = _bias_at(bias, _places(pitch, shift, COLUMNS, BLOCK), places, centre)
    tile = tl.zeros([BLOCK, BLOCK], tl.float32)
    by_scale = tl.zeros([BLOCK], tl.float32)
    for index in range(rest // (2 * blocks - 1), count, groups):
        rect = _rectangle(rects, index)
        used = tl.cdiv(rect[2], rows)
        for block in range(max(shift, 0), min(used, used + shift)):
            queries = _seats(rect, block * seats, seats, pitch, COLUMNS, BLOCK)
            keys = _seats(rect, (block - shift) * seats, seats, pitch, COLUMNS, BLOCK)
            q = _load(q_of, queries, 3 * channels)
            k = _load(q_of + channels, keys, 3 * channels)
            v = _load(q_of + 2 * channels, keys, 3 * channels)
            d_out = _load(grad + head * _D, queries, channels)
            at = queries[0] * heads + head
            row_lse = tl.load(lse + at, mask=queries[2], other=float("inf"))
            cosines = _cosines(q, k, 1.0)
            logits = tl.where(keys[2][None, :], cosines * scale + biases, float("-inf"))
            p = _exp(logits, row_lse[:, None])
            if WHOLE:
                d_v = _dot(tl.trans(p.to(d_out.dtype)), d_out)
                _save(d_q_of + 2 * channels, d_v, keys, 3 * channels)
            d_p = _dot(d_out, tl.trans(v))
            if WHOLE:  # p sums to one only as exactly as the log-sum-exp was rounded
                mean = tl.sum(p * d_p, 1) / tl.where(queries[2], tl.sum(p, 1), 1.0)
            else:
                mean = tl.load(delta + at, mask=queries[2], other=0.0)
            d_logits = p * (d_p - mean[:, None])
            tile += d_logits
            by_scale += tl.sum(d_logits * cosines, 1)
            if WHOLE:
                rounded = d_logits.to(q.dtype)
                d_q = scale * _dot(rounded, _unit(k).to(k.dtype))
                _save(d_q_of, _through_unit(d_q, q), queries, 3 * channels)
                d_k = scale * _dot(tl.trans(rounded), _unit(q).to(q.dtype))
                _save(d_q_of + channels, _through_unit(d_k, k), keys, 3 * channels)
    lane = tl.arange(0, BLOCK)
    tiles += tl.program_id(0) * BLOCK * BLOCK
    tl.store(tiles + lane[:, None] * BLOCK + lane[None, :], tile)
    tl.store(grad_scale + tl.program_id(0), tl.sum(by_scale, 0))


@_kernel
def _fold(
    tiles, grad_table, heads, blocks, pitch, centre,
    COLUMNS: tl.constexpr, BLOCK: tl.constexpr, OFFSETS: tl.constexpr,
):  # fmt: skip
    """The gradient of one row of the bias table: the sums over pairs of seats of equal offset."""
    rows: tl.constexpr = BLOCK // COLUMNS
    height = centre // pitch  # Mh - 1
    head = tl.program_id(0) // (2 * height + 1)
    down = tl.program_id(0) % (2 * height + 1) - height  # from key to query, as is ``across``
    offset = tl.arange(0, OFFSETS)
    across = offset[None, :] - pitch // 2
    query = tl.arange(0, BLOCK)[:, None]
    total = tl.zeros([OFFSETS], tl.float32)
    nearest = (down + blocks * rows) // rows - blocks  # rounded down
    for shift in range(max(nearest, 1 - blocks), min(nearest + 2, blocks)):
        row, column = query // COLUMNS - (down - shift * rows), query % COLUMNS - across
        pair = (query < rows * COLUMNS) & (row >= 0) & (row < rows)
        pair &= (column >= 0) & (column < COLUMNS)
        tile = tiles + ((shift + blocks - 1) * heads + head) * BLOCK * BLOCK
        at = tile + query * BLOCK + row * COLUMNS + column
        total += tl.sum(tl.load(at, mask=pair, other=0.0), 0)
    tl.store(grad_table + tl.program_id(0) * pitch + offset, total, mask=offset < pitch)


class _Geometry(NamedTuple):
    """How the tokens are tiled."""

    rectangles: Tensor
    rows: int  # of the highest rectangle
    blocks: int  # of its seats
    place: tuple[int, int, int, int]  # pitch, centre, COLUMNS, BLOCK


def _power_of_2(n: int) -> int:
    """The next, or ``n`` itself; Triton's takes microseconds."""
    return 1 << (n - 1).bit_length()


def _geometry(qkv: Tensor, sizes: list[int], window: list[int], shifted: bool) -> _Geometry:
    maps = tuple(zip(sizes[::2], sizes[1::2]))
    if sum(map(prod, maps)) != len(qkv):
        raise ValueError(f"{len(qkv)} tokens are not those of maps of {maps}")
    rows = min(window[0], max(sizes[::2]))
    # Seats in a row: as many as the window has or, for narrower maps, one of few numbers.
    columns = min(window[1], 8 * cdiv(max(sizes[1::2]), 8))
    block = min(LARGEST_BLOCK, max(16, _power_of_2(rows * columns)))
    pitch = 2 * window[1] - 1
    centre = (window[0] - 1) * pitch + window[1] - 1
    rects = rectangles(maps, tuple(window), shifted, qkv.device)
    blocks = cdiv(rows * columns, block)
    return _Geometry(rects, rows, blocks, (pitch, centre, columns, block))


def _empty_results(qkv: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    tokens, heads = qkv.shape[0], scale.shape[0]
    out = qkv.new_empty(tokens, heads * HEAD_DIM)
    return out, qkv.new_empty(tokens, heads, dtype=torch.float32)


def attention(
    qkv: Tensor, scale: Tensor, table: Tensor, sizes: list[int], window: list[int], shifted: bool
) -> tuple[Tensor, Tensor]:
    """The result (T, C), and the log-sum-exp of all rows of logits (T, nH)."""
    out, lse = _empty_results(qkv, scale)
    rects, _, blocks, place = _geometry(qkv, sizes, window, shifted)
    heads, count, warps = len(scale), len(rects), WARPS[qkv.dtype]
    tensors, (numbers, constants) = (qkv, scale, table, rects, out, lse), (place[:2], place[2:])
    if blocks == 1:
        groups = min(count, cdiv(PROGRAMS, heads))
        numbers, options = (heads, count, groups, *numbers), {"num_warps": warps} | PREFETCH
        launch(_forward_whole, groups * heads, tensors, numbers, constants, **options)
    else:
        numbers, programs = (heads, blocks, *numbers), count * blocks * heads
        launch(_forward, programs, tensors, numbers, constants, num_warps=warps)
    return out, lse


def attention_backward(
    grad: Tensor,
    qkv: Tensor,
    scale: Tensor,
    table: Tensor,
    out: Tensor,
    lse: Tensor,
    sizes: list[int],
    window: list[int],
    shifted: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of qkv, scale and table."""
    rects, rows, blocks, place = _geometry(qkv, sizes, window, shifted)
    heads, count, whole, warps = len(scale), len(rects), blocks == 1, WARPS[qkv.dtype]
    given, grad = (qkv, scale, table, rects), grad.contiguous()
    (pitch, centre), (columns, block) = place[:2], place[2:]
    row_blocks = cdiv(rows, block // columns)
    kinds = (2 * row_blocks - 1) * heads  # of tiles whose gradients add up to one
    groups = min(count, cdiv(PROGRAMS, kinds))
    tiles, grad_scale = (table.new_empty(groups, kinds, *tile) for tile in ((block, block), ()))
    grad_qkv, grad_table, delta = (torch.empty_like(like) for like in (qkv, table, lse))
    if not whole:  # in this order: the first writes delta, which the others read
        programs, numbers = count * blocks * heads, (heads, blocks, pitch, centre)
        tensors = *given, out, lse, grad, grad_qkv, delta
        launch(_backward_queries, programs, tensors, numbers, place[2:], num_warps=warps)
        tensors = *given, lse, grad, grad_qkv, delta
        launch(_backward_keys, programs, tensors, numbers, place[2:], num_warps=warps)
    tensors = *given, lse, grad, grad_qkv, delta, tiles, grad_scale
    numbers = heads, count, groups, row_blocks, pitch, centre
    constants = *place[2:], whole
    launch(_backward_tiles, groups * kinds, tensors, numbers, constants, num_warps=warps)
    numbers, constants = numbers[:1] + numbers[3:], (*place[2:], _power_of_2(pitch))
    tensors = tiles.sum(0), grad_table
    launch(_fold, table.numel() // pitch, tensors, numbers, constants, num_warps=8)
    return grad_qkv, grad_scale.view(-1, heads).sum(0), grad_table


_attention = torch.library.custom_op("swinv2::triton_window_attention", attention, mutates_args=())
_attention_backward = torch.library.custom_op(
    "swinv2::triton_window_attention_backward", attention_backward, mutates_args=()
)


@_attention.register_fake
def _(qkv, scale, table, sizes, window, shifted):
    return _empty_results(qkv, scale)


@_attention_backward.register_fake
def _(grad, qkv, scale, table, out, lse, sizes, window, shifted):
    return torch.empty_like(qkv), torch.empty_like(scale), torch.empty_like(table)


def _keep(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    qkv, scale, table, *ctx.geometry = inputs
    ctx.save_for_backward(qkv, scale, table, *output)


def _differentiate(ctx, grad: Tensor, _: Tensor):
    saved = ctx.saved_tensors
    return *_attention_backward(grad, *saved, *ctx.geometry), None, None, None


_attention.register_autograd(_differentiate, setup_context=_keep)


def triton_window_attention(
    qkv: Tensor, scale: Tensor, table: Tensor, sizes: tuple[Size, ...], window: Size, shifted: bool
) -> Tensor:
    """Attention of every token to the tokens of its own rectangle; one opaque op to torch.compile.

    Args:
        qkv: (T, 3C) packed tokens of all images, in float32, float16 or bfloat16.
        scale: (nH,) or (nH, 1, 1) float32, up to 100.
        table: (nH, (2 Mh - 1) * (2 Mw - 1)) float32, the bias of every offset.
        sizes: of the maps, one an image.
        window: (Mh, Mw), Mw at most 64.
        shifted: whether the windows are shifted by half a window.

    Returns:
        (T, C) in the dtype of ``qkv``.

    Raises:
        ValueError: for other dtypes, wider windows, and heads that are not of 32 channels.
        RuntimeError: what this GPU computes is not what it should be, see :func:`check_once`.
    """
    heads = scale.numel()
    if qkv.shape[1] != 3 * HEAD_DIM * heads:
        raise ValueError(
            f"{qkv.shape[1]} channels of q, k and v in {heads} heads are "
            f"{qkv.shape[1] / 3 / heads:g} a head, not {HEAD_DIM}"
        )
    if qkv.dtype not in WARPS:
        raise ValueError(f"qkv is {qkv.dtype}, not one of {tuple(WARPS)}")
    if window[1] > LARGEST_BLOCK:
        raise ValueError(f"a window of {window} is wider than {LARGEST_BLOCK} tokens")
    if qkv.is_cuda and not torch.compiler.is_compiling():
        check_once(CHECK, qkv.device, qkv.dtype)
    flat = [length for size in sizes for length in size]
    out, _ = _attention(
        qkv.contiguous(), scale.flatten(), table.contiguous(), flat, list(window), shifted
    )
    return out


CHECK = check_of_attention(triton_window_attention)
