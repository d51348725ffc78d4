"""The forward kernels of attention, see ../attention.py."""
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
    of_program,
    places_of,
    slots_of,
    store_rows,
)


@kernel
def forward_whole(
    qkv, scale, table, windows, out, lse, heads, count, groups, pitch, center,
    COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Windows that are one block each; they share the bias, which is loaded once."""
    head, channels = tl.program_id(0) % heads, heads * D
    q_of = qkv + head * D
    scale, bias = tl.load(scale + head), table + head * (2 * center + 1) + center
    places = places_of(pitch, 0, COLUMNS, BLOCK)
    biases = load_bias_of_places(bias, places, places, center)
    for index in range(tl.program_id(0) // heads, count, groups):
        slots = slots_of(load_window(windows, index), 0, BLOCK, pitch, COLUMNS, BLOCK)
        q = load_rows(q_of, slots, 3 * channels)
        k = load_rows(q_of + channels, slots, 3 * channels)
        v = load_rows(q_of + 2 * channels, slots, 3 * channels)
        logits = tl.where(slots[2][None, :], cosines(q, k, scale) + biases, float("-inf"))
        top = tl.max(logits, 1)
        p = exp(logits, top[:, None])
        mass = tl.sum(p, 1)
        store_rows(out + head * D, dot(p.to(v.dtype), v) / mass[:, None], slots, channels)
        tl.store(lse + slots[0] * heads + head, top + tl.log(mass), mask=slots[2])


@kernel
def forward_block(
    qkv, scale, table, windows, out, lse, heads, blocks, pitch, center,
    COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of queries of a window and head, with an online softmax over blocks of keys."""
    head, block, window = of_program(windows, heads, blocks)
    size, channels = window[2] * COLUMNS, heads * D
    if block * BLOCK >= size:
        return
    q_of = qkv + head * D
    scale, bias = tl.load(scale + head), table + head * (2 * center + 1) + center
    queries = slots_of(window, block * BLOCK, BLOCK, pitch, COLUMNS, BLOCK)
    q = load_rows(q_of, queries, 3 * channels)
    top = tl.full([BLOCK], float("-inf"), tl.float32)
    mass = tl.zeros([BLOCK], tl.float32)
    total = tl.zeros([BLOCK, D], tl.float32)
    for start in range(0, size, BLOCK):
        keys = slots_of(window, start, BLOCK, pitch, COLUMNS, BLOCK)
        biases = load_bias(bias, queries, keys)
        k = load_rows(q_of + channels, keys, 3 * channels)
        v = load_rows(q_of + 2 * channels, keys, 3 * channels)
        logits = cosines(q, k, scale) + biases
        new_top = tl.maximum(top, tl.max(logits, 1))
        p, fade = exp(logits, new_top[:, None]), exp(top, new_top)
        mass = mass * fade + tl.sum(p, 1)
        total = total * fade[:, None] + dot(p.to(v.dtype), v)
        top = new_top
    store_rows(out + head * D, total / mass[:, None], queries, channels)
    tl.store(lse + queries[0] * heads + head, top + tl.log(mass), mask=queries[2])
