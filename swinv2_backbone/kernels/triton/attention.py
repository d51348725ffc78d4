"""Scaled cosine attention over the clipped windows of packed tokens, as Triton kernels.

``softmax(cos(q, k) * scale + bias) v`` (paper section 3.2, equation 2) without a tensor of logits,
windows or masks: a program reads the tokens of a clipped window (tiles.py) in map order, keeps a
block of the logits in registers, and writes the result in map order.

- Matrix products take q, k and v in their own dtype and accumulate in float32.  For the cosines,
  the float32 product is divided by the norms of q and k: logits reach 116, and rounding a
  normalized q or k to bfloat16 would shift them by tenths.
- The bias of query i and key j is at place(i) - place(j) from the center of its head's table,
  where the place of row h and column w is h * (2 Mw - 1) + w.
- The backward recomputes the probabilities from the log-sum-exp of every row of logits.
- There are no atomic additions, so the gradients are bitwise equal in every run.

Legend: T tokens of the batch; nH heads; C = 32 nH channels; nW clipped windows; Mh, Mw the window.
BLOCK slots of a clipped window, some of them empty, are a block of queries or of keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from swinv2_backbone.kernels.choose import TRITON_HEAD_DIM
from swinv2_backbone.kernels.operator import Operator
from swinv2_backbone.kernels.self_check import check_of_attention, check_once
from swinv2_backbone.kernels.tiles import clipped_windows
from swinv2_backbone.kernels.triton.device.attention_backward import (
    backward_keys,
    backward_pairs,
    backward_queries,
    fold,
)
from swinv2_backbone.kernels.triton.device.attention_forward import forward_block, forward_whole
from swinv2_backbone.kernels.triton.launch import cdiv, launch
from swinv2_backbone.packing import flat_sizes, sizes_of
from swinv2_backbone.windows import Partition

# Tuned on an H100.  In float32, which uses no tensor cores, 4 warps spill registers.  Prefetching
# pays off only in forward_whole, which loads little besides q, k and v.  Kernels that loop over
# windows run about PROGRAMS programs, a few per multiprocessor.
LARGEST_BLOCK = 64
PROGRAMS = 1024
WARPS = {torch.float32: 8, torch.float16: 4, torch.bfloat16: 4}
PREFETCH = 2  # stages


class Arguments(NamedTuple):
    """The arguments of ``torch.ops.swinv2.triton_window_attention``."""

    qkv: Tensor  # (T, 3C)
    scale: Tensor  # (nH,) float32
    table: Tensor  # (nH, offsets of the window) float32
    sizes: list[int]  # height and width of each map in turn
    window: list[int]  # (Mh, Mw)
    shifted: bool
    square_small_maps: bool


class _Geometry(NamedTuple):
    """The division of the tokens into blocks."""

    windows: Tensor  # (nW, 4), see clipped_windows
    rows: int  # of the tallest clipped window
    blocks: int  # of slots of that window
    numbers: tuple[int, int]  # pitch, center
    constants: tuple[int, int]  # COLUMNS, BLOCK


def _power_of_2(n: int) -> int:
    """Round up to a power of two; Triton's function takes microseconds."""
    return 1 << (n - 1).bit_length()


def _geometry(a: Arguments) -> _Geometry:
    sizes, (height, width) = sizes_of(a.sizes), a.window
    if sum(map(prod, sizes)) != len(a.qkv):
        raise ValueError(f"{len(a.qkv)} tokens do not fill maps of {sizes}")
    partition = Partition(sizes, (height, width), a.shifted, a.square_small_maps)
    rows = min(height, max(a.sizes[::2]))
    # Slots per row: the window's width or, if all maps are narrower, a multiple of 8, so that few
    # kernels are compiled.
    columns = min(width, 8 * cdiv(max(a.sizes[1::2]), 8))
    block = min(LARGEST_BLOCK, max(16, _power_of_2(rows * columns)))
    pitch = 2 * width - 1
    return _Geometry(
        clipped_windows(partition, a.qkv.device),
        rows,
        blocks=cdiv(rows * columns, block),
        numbers=(pitch, (height - 1) * pitch + width - 1),
        constants=(columns, block),
    )


def _empty_results(a: Arguments) -> list[Tensor]:
    tokens, heads = a.qkv.shape[0], a.scale.shape[0]
    out = a.qkv.new_empty(tokens, heads * TRITON_HEAD_DIM)
    return [out, a.qkv.new_empty(tokens, heads, dtype=torch.float32)]


def attention(a: Arguments) -> list[Tensor]:
    """Return the result (T, C), and the log-sum-exp of all rows of logits (T, nH)."""
    out, lse = _empty_results(a)
    windows, _, blocks, numbers, constants = _geometry(a)
    heads, count, warps = len(a.scale), len(windows), WARPS[a.qkv.dtype]
    tensors = a.qkv, a.scale, a.table, windows, out, lse
    if blocks == 1:
        groups = min(count, cdiv(PROGRAMS, heads))
        launch(
            forward_whole,
            groups * heads,
            tensors,
            (heads, count, groups, *numbers),
            constants,
            num_warps=warps,
            num_stages=PREFETCH,
        )
    else:
        programs = count * blocks * heads
        launch(
            forward_block, programs, tensors, (heads, blocks, *numbers), constants, num_warps=warps
        )
    return [out, lse]


def attention_backward(
    grad: Tensor, out: Tensor, lse: Tensor, a: Arguments
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of qkv, scale and table, from the results of :func:`attention`."""
    windows, rows, blocks, numbers, (columns, block) = _geometry(a)
    heads, count, warps = len(a.scale), len(windows), WARPS[a.qkv.dtype]
    given, grad = (a.qkv, a.scale, a.table, windows), grad.contiguous()
    grad_qkv, grad_table, delta = (torch.empty_like(like) for like in (a.qkv, a.table, lse))
    gradients = lse, grad, grad_qkv, delta
    if blocks > 1:  # in this order: the first writes delta, which the others read
        programs, integers = count * blocks * heads, (heads, blocks, *numbers)
        for kernel, tensors in (
            (backward_queries, (*given, out, *gradients)),
            (backward_keys, (*given, *gradients)),
        ):
            launch(kernel, programs, tensors, integers, (columns, block), num_warps=warps)
    row_blocks = cdiv(rows, block // columns)
    kinds = (2 * row_blocks - 1) * heads  # of pairs of blocks; pairs of one kind are summed
    groups = min(count, cdiv(PROGRAMS, kinds))
    pairs = a.table.new_empty(groups, kinds, block, block)
    grad_scale = a.table.new_empty(groups, kinds)
    launch(
        backward_pairs,
        groups * kinds,
        (*given, *gradients, pairs, grad_scale),
        (heads, count, groups, row_blocks, *numbers),
        (columns, block, blocks == 1),
        num_warps=warps,
    )
    pitch = numbers[0]
    launch(
        fold,
        a.table.numel() // pitch,
        (pairs.sum(0), grad_table),
        (heads, row_blocks, *numbers),
        (columns, block, _power_of_2(pitch)),
        num_warps=8,
    )
    return grad_qkv, grad_scale.view(-1, heads).sum(0), grad_table


def _backward(grad: Tensor, saved: Sequence[Tensor], a: Arguments) -> list[Tensor]:
    out, lse = saved
    return list(attention_backward(grad, out, lse, a))


def _empty_gradients(grad: Tensor, a: Arguments) -> list[Tensor]:
    return [torch.empty_like(each) for each in (a.qkv, a.scale, a.table)]


OPERATOR = Operator(
    "triton_window_attention",
    Arguments,
    learned=("qkv", "scale", "table"),
    forward=attention,
    backward=_backward,
    empty_results=_empty_results,
    empty_gradients=_empty_gradients,
    saves_output=True,
)


def triton_window_attention(
    qkv: Tensor, scale: Tensor, table: Tensor, partition: Partition
) -> Tensor:
    """Compute attention within clipped windows; to torch.compile, this is one operator.

    Args:
        qkv: (T, 3C) packed tokens of all images, in float32, float16 or bfloat16.
        scale: (nH,) or (nH, 1, 1) float32, at most 100.
        table: (nH, (2 Mh - 1) * (2 Mw - 1)) float32, the bias of every offset.
        partition: the windows, at most 64 tokens wide.

    Returns:
        (T, C) in the dtype of ``qkv``.

    Raises:
        ValueError: other dtypes, wider windows, or heads that do not have 32 channels.
        RuntimeError: the results of this GPU are wrong, see :func:`check_once`.
    """
    _check_arguments(qkv, scale.numel(), partition)
    if qkv.is_cuda and not torch.compiler.is_compiling():
        check_once(CHECK, qkv.device, qkv.dtype)
    arguments = Arguments(
        qkv.contiguous(),
        scale.flatten(),
        table.contiguous(),
        flat_sizes(partition.sizes),
        list(partition.window),
        partition.shifted,
        partition.square_small_maps,
    )
    return OPERATOR(arguments)[0]


def _check_arguments(qkv: Tensor, heads: int, partition: Partition) -> None:
    if qkv.shape[1] != 3 * TRITON_HEAD_DIM * heads:
        raise ValueError(
            f"qkv of {qkv.shape[1]} channels and {heads} heads has "
            f"{qkv.shape[1] / 3 / heads:g} channels per head, not {TRITON_HEAD_DIM}"
        )
    if qkv.dtype not in WARPS:
        raise ValueError(f"qkv is {qkv.dtype}, not one of {tuple(WARPS)}")
    if partition.window[1] > LARGEST_BLOCK:
        raise ValueError(f"a window of {partition.window} is wider than {LARGEST_BLOCK} tokens")


CHECK = check_of_attention(triton_window_attention)
