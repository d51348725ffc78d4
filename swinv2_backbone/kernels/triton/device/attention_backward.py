"""The backward kernels of attention, see ../attention.py."""
# Not typed: values on the device have no Python types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton.language as tl

from swinv2_backbone.kernels.triton.device.attention import (
    D,
    cosines,
    dot,
    exp,
    kernel,
    load_bias,
    load_bias_of_places,
    load_rows,
    load_window,
    normalize,
    normalize_backward,
    of_program,
    places_of,
    slots_of,
    store_rows,
)


@kernel
def backward_queries(
    qkv, scale, table, windows, out, lse, grad, grad_qkv, delta,
    heads, blocks, pitch, center, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of one block of q, and ``delta``, the sum of p * dp of every query.

    That sum equals the dot product of the result and its gradient, up to the rounding of the
    result.  The difference is accumulated in the loop, so that the logit gradients of a query sum
    to zero in the kernels that read ``delta``.  Otherwise the gradients of scale and bias would be
    off by several percent.
    """
    head, block, window = of_program(windows, heads, blocks)
    size, channels = window[2] * COLUMNS, heads * D
    if block * BLOCK >= size:
        return
    q_of = qkv + head * D
    scale, bias = tl.load(scale + head), table + head * (2 * center + 1) + center
    queries = slots_of(window, block * BLOCK, BLOCK, pitch, COLUMNS, BLOCK)
    q = load_rows(q_of, queries, 3 * channels)
    d_out = load_rows(grad + head * D, queries, channels)
    o = load_rows(out + head * D, queries, channels)
    mean = tl.sum(o.to(tl.float32) * d_out.to(tl.float32), 1)
    at = queries[0] * heads + head
    row_lse = tl.load(lse + at, mask=queries[2], other=float("inf"))
    lacking = tl.zeros([BLOCK], tl.float32)
    d_q = tl.zeros([BLOCK, D], tl.float32)
    for start in range(0, size, BLOCK):
        keys = slots_of(window, start, BLOCK, pitch, COLUMNS, BLOCK)
        biases = load_bias(bias, queries, keys)
        k = load_rows(q_of + channels, keys, 3 * channels)
        v = load_rows(q_of + 2 * channels, keys, 3 * channels)
        logits = cosines(q, k, scale) + biases
        p = exp(logits, row_lse[:, None])
        d_logits = p * (dot(d_out, tl.trans(v)) - mean[:, None])
        lacking += tl.sum(d_logits, 1)
        d_q += dot(d_logits.to(q.dtype), normalize(k).to(k.dtype))
    tl.store(delta + at, mean + lacking, mask=queries[2])
    store_rows(grad_qkv + head * D, normalize_backward(scale * d_q, q), queries, 3 * channels)


@kernel
def backward_keys(
    qkv, scale, table, windows, lse, grad, grad_qkv, delta,
    heads, blocks, pitch, center, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradients of one block of k and v.  Logits are transposed here: keys by queries."""
    head, block, window = of_program(windows, heads, blocks)
    size, channels = window[2] * COLUMNS, heads * D
    if block * BLOCK >= size:
        return
    q_of, d_q_of = qkv + head * D, grad_qkv + head * D
    scale, bias = tl.load(scale + head), table + head * (2 * center + 1) + center
    keys = slots_of(window, block * BLOCK, BLOCK, pitch, COLUMNS, BLOCK)
    k = load_rows(q_of + channels, keys, 3 * channels)
    v = load_rows(q_of + 2 * channels, keys, 3 * channels)
    d_k = tl.zeros([BLOCK, D], tl.float32)
    d_v = tl.zeros([BLOCK, D], tl.float32)
    for start in range(0, size, BLOCK):
        queries = slots_of(window, start, BLOCK, pitch, COLUMNS, BLOCK)
        biases = tl.trans(load_bias(bias, queries, keys))
        q = load_rows(q_of, queries, 3 * channels)
        d_out = load_rows(grad + head * D, queries, channels)
        at = queries[0] * heads + head
        row_lse = tl.load(lse + at, mask=queries[2], other=float("inf"))
        mean = tl.load(delta + at, mask=queries[2], other=0.0)
        logits = cosines(k, q, scale) + biases
        p = exp(logits, row_lse[None, :])
        d_logits = p * (dot(v, tl.trans(d_out)) - mean[None, :])
        d_k += dot(d_logits.to(q.dtype), normalize(q).to(q.dtype))
        d_v += dot(p.to(d_out.dtype), d_out)
    store_rows(d_q_of + channels, normalize_backward(scale * d_k, k), keys, 3 * channels)
    store_rows(d_q_of + 2 * channels, d_v, keys, 3 * channels)


@kernel
def backward_pairs(
    qkv, scale, table, windows, lse, grad, grad_qkv, delta, pairs, grad_scale,
    heads, count, groups, blocks, pitch, center,
    COLUMNS: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """The gradient of the scale, and the logit gradients summed over equivalent pairs of blocks.

    A pair is a block of queries and a block of keys.  Blocks are whole rows here.  Pairs whose
    queries are ``shift`` blocks below their keys are equivalent: they have the same offsets at the
    same slots, at every place and in every window.

    If one pair is a WHOLE window, this kernel also computes the gradients of q, k and v, and needs
    no ``delta``: ``backward_queries`` and ``backward_keys`` are not run.
    """
    rest, channels = tl.program_id(0) // heads, heads * D
    head, shift = tl.program_id(0) % heads, rest % (2 * blocks - 1) - (blocks - 1)
    q_of, d_q_of = qkv + head * D, grad_qkv + head * D
    scale, bias = tl.load(scale + head), table + head * (2 * center + 1) + center
    rows: tl.constexpr = BLOCK // COLUMNS
    slots: tl.constexpr = rows * COLUMNS
    places = places_of(pitch, 0, COLUMNS, BLOCK)
    biases = load_bias_of_places(bias, places_of(pitch, shift, COLUMNS, BLOCK), places, center)
    pair = tl.zeros([BLOCK, BLOCK], tl.float32)
    by_scale = tl.zeros([BLOCK], tl.float32)
    for index in range(rest // (2 * blocks - 1), count, groups):
        window = load_window(windows, index)
        used = tl.cdiv(window[2], rows)
        for block in range(max(shift, 0), min(used, used + shift)):
            queries = slots_of(window, block * slots, slots, pitch, COLUMNS, BLOCK)
            keys = slots_of(window, (block - shift) * slots, slots, pitch, COLUMNS, BLOCK)
            q = load_rows(q_of, queries, 3 * channels)
            k = load_rows(q_of + channels, keys, 3 * channels)
            v = load_rows(q_of + 2 * channels, keys, 3 * channels)
            d_out = load_rows(grad + head * D, queries, channels)
            at = queries[0] * heads + head
            row_lse = tl.load(lse + at, mask=queries[2], other=float("inf"))
            cos = cosines(q, k, 1.0)
            logits = tl.where(keys[2][None, :], cos * scale + biases, float("-inf"))
            p = exp(logits, row_lse[:, None])
            if WHOLE:
                d_v = dot(tl.trans(p.to(d_out.dtype)), d_out)
                store_rows(d_q_of + 2 * channels, d_v, keys, 3 * channels)
            d_p = dot(d_out, tl.trans(v))
            if WHOLE:  # p sums to one only up to the rounding of the log-sum-exp
                mean = tl.sum(p * d_p, 1) / tl.where(queries[2], tl.sum(p, 1), 1.0)
            else:
                mean = tl.load(delta + at, mask=queries[2], other=0.0)
            d_logits = p * (d_p - mean[:, None])
            pair += d_logits
            by_scale += tl.sum(d_logits * cos, 1)
            if WHOLE:
                rounded = d_logits.to(q.dtype)
                d_q = scale * dot(rounded, normalize(k).to(k.dtype))
                store_rows(d_q_of, normalize_backward(d_q, q), queries, 3 * channels)
                d_k = scale * dot(tl.trans(rounded), normalize(q).to(q.dtype))
                store_rows(d_q_of + channels, normalize_backward(d_k, k), keys, 3 * channels)
    lane = tl.arange(0, BLOCK)
    pairs += tl.program_id(0) * BLOCK * BLOCK
    tl.store(pairs + lane[:, None] * BLOCK + lane[None, :], pair)
    tl.store(grad_scale + tl.program_id(0), tl.sum(by_scale, 0))


@kernel
def fold(
    pairs, grad_table, heads, blocks, pitch, center,
    COLUMNS: tl.constexpr, BLOCK: tl.constexpr, OFFSETS: tl.constexpr,
):  # fmt: skip
    """The gradient of one row of the bias table: sums over the pairs of slots of each offset."""
    rows: tl.constexpr = BLOCK // COLUMNS
    height = center // pitch  # Mh - 1
    head = tl.program_id(0) // (2 * height + 1)
    down = tl.program_id(0) % (2 * height + 1) - height  # from key to query, like ``across``
    offset = tl.arange(0, OFFSETS)
    across = offset[None, :] - pitch // 2
    query = tl.arange(0, BLOCK)[:, None]
    total = tl.zeros([OFFSETS], tl.float32)
    nearest = (down + blocks * rows) // rows - blocks  # rounded down
    for shift in range(max(nearest, 1 - blocks), min(nearest + 2, blocks)):
        row, column = query // COLUMNS - (down - shift * rows), query % COLUMNS - across
        mask = (query < rows * COLUMNS) & (row >= 0) & (row < rows)
        mask &= (column >= 0) & (column < COLUMNS)
        pair = pairs + ((shift + blocks - 1) * heads + head) * BLOCK * BLOCK
        at = pair + query * BLOCK + row * COLUMNS + column
        total += tl.sum(tl.load(at, mask=mask, other=0.0), 0)
    tl.store(grad_table + tl.program_id(0) * pitch + offset, total, mask=offset < pitch)
