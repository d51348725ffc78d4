"""Which token sits in which window, for a graph: ``windows.py`` in operators instead of Python.

A graph is made once and runs at every batch size, height and width, so that nothing may be decided
while it is made.  The same rules as in windows.py are arithmetic on sizes here: numbers of seats
and of tokens are taken apart into image, window, row and column.

Two things differ, and neither is seen: all images of a batch have one size, and a window larger
than the map is laid out whole, its seats outside the map empty.  (A bias depends on the offset
alone, so that nothing depends on how large a window is laid out.)

Legend: T tokens of the whole batch; nW windows of the whole batch; N seats in a window (Mh * Mw); S
seats in all.  A size is (height, width) in tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from swinv2_backbone.windows import EMPTY, Size, WindowLayout, WindowPermutation


def graph_layout(
    batch: int, size: Size, window: Size, shifted: bool, device: torch.device
) -> WindowLayout:
    """The layout of ``batch`` maps of one size; ``batch`` and ``size`` may be symbols."""
    (mh, mw), (h, w) = window, size
    nh, nw = (h + mh - 1) // mh, (w + mw - 1) // mw
    seats = torch.arange(batch * nh * nw * mh * mw, device=device)
    tokens = torch.arange(batch * h * w, device=device)
    # From here on sizes are tensors: ONNX has no remainder of a tensor by a symbol.
    h, w, nh, nw = (
        torch.scalar_tensor(n, dtype=torch.int64, device=device) for n in (h, w, nh, nw)
    )

    window_number, column = seats // (mh * mw), seats % mw
    rows, row_regions = _roll(window_number // nw % nh * mh + seats // mw % mh, h, nh, mh, shifted)
    columns, column_regions = _roll(window_number % nw * mw + column, w, nw, mw, shifted)
    empty = (rows >= h) | (columns >= w)
    token_of_slot = (window_number // (nh * nw) * h + rows) * w + columns
    regions = torch.where(empty, EMPTY, 2 * row_regions + column_regions)

    window_row, row = _unroll(tokens // w % h, h, nh, mh, shifted)
    window_column, column = _unroll(tokens % w, w, nw, mw, shifted)
    window_number = (tokens // (h * w) * nh + window_row) * nw + window_column
    slot_of_token = (window_number * mh + row) * mw + column
    return WindowLayout(
        window,
        WindowPermutation(torch.where(empty, 0, token_of_slot), slot_of_token, empty[:, None]),
        regions.view(-1, mh * mw),
    )


def _roll(
    seats: Tensor, length: Tensor, windows: Tensor, window: int, shifted: bool
) -> tuple[Tensor, Tensor]:
    """Places along one axis of the extended map -> coordinates, and regions (0 or 1)."""
    rolled = seats + _shift(length, window, shifted)
    return rolled % (windows * window), (rolled >= windows * window).long()


def _unroll(
    coordinates: Tensor, length: Tensor, windows: Tensor, window: int, shifted: bool
) -> tuple[Tensor, Tensor]:
    """Coordinates along one axis -> the number of the window, and the place in it."""
    extended = windows * window
    places = (coordinates + extended - _shift(length, window, shifted)) % extended
    return places // window, places % window


def _shift(length: Tensor, window: int, shifted: bool) -> Tensor:
    """Half a window; none of a map that fits in one."""
    return (length > window).long() * (window // 2 if shifted else 0)
