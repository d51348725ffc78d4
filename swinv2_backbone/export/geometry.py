"""The window layout as tensor operations, for graphs that run at every size.

A graph is traced once and runs at every batch size, height and width, so the layout cannot depend
on control flow in Python.  Where windows.py loops over images, this module computes the image,
window, row and column of every token and every slot from its index.

The layout differs from windows.py in two ways that do not change the results: all images of a batch
have one size, and a window larger than the map keeps its size, with empty slots outside the map.
(The bias depends on offsets alone, not on the size of the window.)

Legend: T tokens of the whole batch; nW windows of the whole batch; N slots of a window (Mh * Mw); S
slots of the whole batch (nW * N).  A size is (height, width) in tokens.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from swinv2_backbone.packing import Size
from swinv2_backbone.windows import EMPTY, WindowLayout, WindowPermutation


def graph_layout(
    batch: int,
    size: Size,
    window: Size,
    shifted: bool,
    device: torch.device,
    square_small_maps: bool = False,
) -> WindowLayout:
    """Return the layout of ``batch`` maps of one size; ``batch`` and ``size`` may be symbols.

    With ``square_small_maps`` (see :class:`Partition`), the windows of a small map take a part of
    their slots, and the rest are empty.
    """
    (mh, mw), (height, width) = window, size
    window_rows, window_columns = (height + mh - 1) // mh, (width + mw - 1) // mw
    number = batch * window_rows * window_columns
    # Sizes as tensors, because ONNX cannot take the remainder of a tensor by a symbol.
    h, w, nh, nw, dh, dw = (
        torch.scalar_tensor(n, dtype=torch.int64, device=device)
        for n in (height, width, window_rows, window_columns, mh, mw)
    )
    shift_h, shift_w = _shift(h, mh, shifted), _shift(w, mw, shifted)
    if square_small_maps:  # dh and dw are the distances between windows
        side = torch.minimum(h, w)
        shift_h = shift_w = _shift(side, mh, shifted)
        dh = dw = side.clamp(max=mh)
        nh, nw = (h + dh - 1) // dh, (w + dw - 1) // dw
        number = _number(batch * nh * nw)
    slots = torch.arange(number * mh * mw, device=device)
    tokens = torch.arange(batch * height * width, device=device)

    window_number, row, column = slots // (mh * mw), slots // mw % mh, slots % mw
    rows, row_regions = _roll(window_number // nw % nh * dh + row, nh * dh, shift_h)
    columns, column_regions = _roll(window_number % nw * dw + column, nw * dw, shift_w)
    empty = (rows >= h) | (columns >= w)
    if square_small_maps:
        empty = empty | (row >= dh) | (column >= dw)
    token_of_slot = (window_number // (nh * nw) * h + rows) * w + columns
    regions = torch.where(empty, EMPTY, 2 * row_regions + column_regions)

    window_row, row = _unroll(tokens // w % h, dh, nh * dh, shift_h)
    window_column, column = _unroll(tokens % w, dw, nw * dw, shift_w)
    window_number = (tokens // (h * w) * nh + window_row) * nw + window_column
    slot_of_token = (window_number * mh + row) * mw + column
    return WindowLayout(
        window,
        WindowPermutation(torch.where(empty, 0, token_of_slot), slot_of_token, empty[:, None]),
        regions.view(-1, mh * mw),
    )


def _number(count: Tensor) -> int:
    """Return a number that a graph computes.

    It is opaque to the tracer, which would take minutes to reason about its formula.
    """
    if torch.jit.is_tracing():  # the older tracer would take the number for a constant
        return cast(int, count)
    number = cast(int, count.item())
    torch._check(number >= 1)
    return number


def _roll(slots: Tensor, padded: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Return the coordinates and regions (0 or 1) of slots along one axis of the padded map."""
    rolled = slots + shift
    return rolled % padded, (rolled >= padded).long()


def _unroll(
    coordinates: Tensor, window: Tensor, padded: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the window and the slot in it of coordinates along one axis."""
    slots = (coordinates + padded - shift) % padded
    return slots // window, slots % window


def _shift(length: Tensor, window: int, shifted: bool) -> Tensor:
    """Return half a window, or 0 if the map fits in one window."""
    return (length > window).long() * (window // 2 if shifted else 0)
