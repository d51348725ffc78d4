"""Geometry: which token sits in which window.  Pure functions, no parameters.

Partitioning maps into (shifted, padded) windows is a permutation of their tokens with some empty
seats: one index vector brings every token to its seat, its inverse brings it home.  What is
decided here, and nowhere else:

- Tokens are packed: the maps of all images of a batch lie one after the other, row by row,
  without any padding between them.  An image's windows depend on its own size alone, so its
  features depend neither on how far the batch was padded nor on its neighbours in the batch.
- Pad before shift: a map is first extended at the bottom and right to whole windows, and the
  extended map is rolled.
- Padding is never attended: it is a seat that stays empty, and an empty seat is a masked key.
- Per axis, per forward: a window is never larger than the largest map of the batch, and a map
  that fits in one window along an axis is not shifted along it.
- The position bias and its normaliser do not change with any of that.

Legend: B images; T tokens of the whole batch; nW windows of the whole batch; N seats in a window
(Mh * Mw); S seats in all; C channels.  A size is (height, width) in tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


class Partition(NamedTuple):
    """How the maps of a batch are cut into windows: all that attention needs to know of them."""

    sizes: tuple[Size, ...]  # (height, width) of each image's map, in tokens
    window: Size  # (Mh, Mw)
    shifted: bool


EMPTY = -1  # the token, or the region, of a seat that nobody takes


class _Permute(torch.autograd.Function):
    """Rows of ``x`` in the order of ``index``, zero where ``empty``.

    ``inverse`` and ``inverse_empty`` say the same of the way back, which is the gradient: a
    gather, where autograd would add up rows one by one.
    """

    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        index: Tensor,
        empty: Tensor | None,
        inverse: Tensor,
        inverse_empty: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(inverse, inverse_empty, index, empty)
        rows = x.index_select(0, index)
        return rows if empty is None else rows.masked_fill_(empty, 0)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _Permute.apply(grad, *ctx.saved_tensors), None, None, None, None


@dataclass(frozen=True, eq=False)
class Seating:
    """Which seat every token takes; every token has one, and some seats may stay empty.

    Attributes:
        token_of_seat: (S,) int32 index of the token in every seat; 0 where the seat is empty.
        seat_of_token: (T,) int32 index of the seat of every token.
        empty: (S, 1) True where a seat is empty; None if every seat is taken.
    """

    token_of_seat: Tensor
    seat_of_token: Tensor
    empty: Tensor | None

    @classmethod
    def of(cls, tokens: Tensor, device: torch.device) -> Seating:
        """The seating with ``tokens`` (S,) in the seats, EMPTY where there is none."""
        empty = tokens == EMPTY
        taken = torch.nonzero(~empty).flatten()
        seat_of_token = torch.empty_like(taken)
        seat_of_token[tokens[taken]] = taken
        return cls(
            tokens.clamp(min=0).int().to(device),
            seat_of_token.int().to(device),
            empty[:, None].to(device) if empty.any() else None,
        )

    def seat(self, tokens: Tensor) -> Tensor:
        """(T, C) -> (S, C); empty seats are zero."""
        return _Permute.apply(tokens, self.token_of_seat, self.empty, self.seat_of_token, None)

    def home(self, seats: Tensor) -> Tensor:
        """(S, C) -> (T, C); what stands in empty seats is dropped."""
        return _Permute.apply(seats, self.seat_of_token, None, self.token_of_seat, self.empty)


@dataclass(frozen=True, eq=False)
class WindowLayout:
    """Where every token of a batch sits for one window size and shift.

    Attributes:
        window: (Mh, Mw), the window in tokens.
        seating: the seats of all windows, window after window.
        regions: (nW, N) int8, the region of the (rolled) map a seat belongs to, EMPTY if it is
            empty; None if every token may attend to its whole window.
    """

    window: Size
    seating: Seating
    regions: Tensor | None

    def to_windows(self, tokens: Tensor) -> Tensor:
        """(T, C) -> (nW, N, C); empty seats are zero."""
        return self.seating.seat(tokens).view(-1, prod(self.window), tokens.shape[-1])

    def to_tokens(self, windows: Tensor) -> Tensor:
        """(nW, N, C) -> (T, C); what stands in empty seats is dropped."""
        return self.seating.home(windows.flatten(0, 1))

    def forbidden(self) -> Tensor | None:
        """(nW, N, N), True where seat i must not attend to seat j; None if nothing is forbidden.

        A token attends to the tokens of its own region.  The query of an empty seat attends to
        every token of its window: its result is dropped, but a row without a key would be NaN.
        """
        if self.regions is None:
            return None
        query, key = self.regions[:, :, None], self.regions[:, None, :]
        return (key == EMPTY) | ((query != key) & (query != EMPTY))


@lru_cache(maxsize=64)
def window_layout(
    sizes: tuple[Size, ...], window: Size, shifted: bool, device: torch.device
) -> WindowLayout:
    """The layout of the maps of ``sizes`` (one an image) in windows of ``window`` tokens.

    The 64 layouts used last are cached.
    """
    seats = tuple(min(m, max(lengths)) for m, lengths in zip(window, zip(*sizes)))
    # Kept beyond this forward, so not an inference tensor, which autograd could not use later.
    with torch.inference_mode(False):
        alike = {size: _seats_of_map(size, seats, window, shifted) for size in set(sizes)}
        tokens = _number_on([alike[size][0] for size in sizes], sizes)
        regions = torch.cat([alike[size][1] for size in sizes])
        return WindowLayout(
            window=seats,
            seating=Seating.of(tokens, device),
            regions=regions.to(device, torch.int8) if regions.any() else None,
        )


def _seats_of_map(size: Size, seats: Size, window: Size, shifted: bool) -> tuple[Tensor, Tensor]:
    """Token and region of every seat of one map, (nW, N) each.

    ``seats`` is the size of a window as it is laid out here; ``window``, as it was configured,
    decides whether the map fits in one and is not shifted.
    """
    shift = [m // 2 if shifted and length > m else 0 for length, m in zip(size, window)]
    rows, row_regions = _seats_of_axis(size[0], seats[0], shift[0])
    cols, col_regions = _seats_of_axis(size[1], seats[1], shift[1])
    rows, row_regions = rows[:, None, :, None], row_regions[:, None, :, None]  # (nh, 1, Mh, 1)
    cols, col_regions = cols[None, :, None, :], col_regions[None, :, None, :]  # (1, nw, 1, Mw)
    empty = (row_regions == EMPTY) | (col_regions == EMPTY)
    tokens = torch.where(empty, EMPTY, rows * size[1] + cols)
    # Rolling an axis joins its two ends in the last window: two regions an axis, four in all.
    regions = torch.where(empty, EMPTY, 2 * row_regions + col_regions)
    return tokens.reshape(-1, prod(seats)), regions.reshape(-1, prod(seats))


def _seats_of_axis(length: int, seats: int, shift: int) -> tuple[Tensor, Tensor]:
    """Coordinate, and region (0, 1 or EMPTY), of every seat along one axis: (n, M) each."""
    windows = -(-length // seats)
    rolled = torch.arange(windows * seats) + shift
    coordinates = rolled % (windows * seats)
    regions = (rolled >= windows * seats).long()
    regions[coordinates >= length] = EMPTY
    return coordinates.view(windows, seats), regions.view(windows, seats)


def _number_on(tokens: list[Tensor], sizes: Sequence[Size]) -> Tensor:
    """Join per-image token numbers (each from 0, or EMPTY) into numbers of the whole batch."""
    numbered, first = [], 0
    for own, size in zip(tokens, sizes):
        own = own.flatten()
        numbered.append(torch.where(own == EMPTY, EMPTY, own + first))
        first += prod(size)
    return torch.cat(numbered)


@lru_cache(maxsize=64)
def tokens_per_image(sizes: tuple[Size, ...], device: torch.device) -> Tensor:
    """(B,) how many of the tokens are each image's.  The 64 answers used last are cached."""
    with torch.inference_mode(False):
        return torch.tensor([prod(size) for size in sizes], device=device)


def shrink(sizes: Sequence[Size], stride: int) -> tuple[Size, ...]:
    """The sizes divided by ``stride``, rounded up."""
    more = stride - 1
    return tuple(((height + more) // stride, (width + more) // stride) for height, width in sizes)


def same(size: Size, other: Size) -> bool:
    """Whether two sizes are known to be the same.

    They are not in a compiled graph where only the data say so, such as sizes that were read from
    the images themselves: one graph is then for all of them.
    """
    if not torch.compiler.is_compiling():
        return size == other
    from torch.fx.experimental.symbolic_shapes import guard_or_false

    return all(guard_or_false(length == others) for length, others in zip(size, other))


def pack(maps: Tensor, sizes: Sequence[Size]) -> Tensor:
    """(B, H, W, C) -> (T, C): the top-left ``sizes[b]`` of every map, row by row."""
    if all(same(size, tuple(maps.shape[1:3])) for size in sizes):
        return maps.flatten(0, 2)
    parts = [one.narrow(0, 0, h).narrow(1, 0, w) for one, (h, w) in zip(maps, sizes)]
    return torch.cat(
        [one.contiguous().view(h * w, one.shape[2]) for one, (h, w) in zip(parts, sizes)]
    )


def unpack(tokens: Tensor, sizes: Sequence[Size], size: Size) -> Tensor:
    """(T, C) -> (B, C, H, W) in channels-last memory, zero outside each image's own map.

    The inverse of :func:`pack`, up to the order of axes; a view where all images have ``size``.
    """
    maps = _maps(tokens, sizes)
    if not all(same(own, size) for own in sizes):
        maps = [
            pad_end(own, (0, 0, 0, size[1] - own.shape[2], 0, size[0] - own.shape[1]))
            for own in maps
        ]
    return (torch.cat(maps) if len(maps) > 1 else maps[0]).permute(0, 3, 1, 2)


def neighbours(tokens: Tensor, sizes: Sequence[Size]) -> Tensor:
    """(T, C) -> (T', 4C): every 2x2 neighbourhood side by side, h0w0, h1w0, h0w1, h1w1.

    Of the neighbourhoods at an odd end of an axis, what lies outside the map is zero.
    """
    merged = []
    for maps in _maps(tokens, sizes):
        # Written so that torch.compile, which sees h and w as symbols, has nothing to prove.
        count, height, width, channels = maps.shape
        rows, columns = (height + 1) // 2, (width + 1) // 2
        even = pad_end(maps, (0, 0, 0, 2 * columns - width, 0, 2 * rows - height))
        pairs = even.view(count, rows, 2, columns, 2, channels).permute(0, 1, 3, 4, 2, 5)
        merged.append(pairs.reshape(count * rows * columns, 4 * channels))
    return torch.cat(merged) if len(merged) > 1 else merged[0]


def pad_end(x: Tensor, padding: tuple[int, ...]) -> Tensor:
    """``F.pad``, but without a copy where there is nothing to pad."""
    # A compiled graph is for all sizes: it may not ask.
    return F.pad(x, padding) if torch.compiler.is_compiling() or any(padding) else x


def _maps(tokens: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
    """(T, C) -> the maps (b, h, w, C), together if all have one size, else one by one; views."""
    if all(same(size, sizes[0]) for size in sizes):
        return [tokens.view(len(sizes), *sizes[0], tokens.shape[1])]
    parts = tokens.split([h * w for h, w in sizes])
    return [own.view(1, *size, tokens.shape[1]) for own, size in zip(parts, sizes)]
