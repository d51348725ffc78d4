"""Window partitioning as a permutation of tokens.  Pure functions, no parameters.

Partitioning maps into (shifted, padded) windows is a permutation of their tokens with some empty
slots: one index vector gathers the tokens into window order, its inverse scatters them back.  The
conventions below are defined in this file only:

- Tokens are packed (packing.py): the windows of an image depend on its own size alone, so its
  features depend neither on how far the batch was padded nor on the other images of the batch.
- Pad before shift: a map is first padded at the bottom and right to whole windows, and the padded
  map is rolled.
- Padding is never attended: a padded position is an empty slot, and an empty slot is a masked key.
- Along each axis, a window is clipped to the largest map of the batch, and a map that fits in one
  window is not shifted.  (Microsoft's rule for small maps, which decides for both axes together, is
  an option: ``Partition.square_small_maps``.)
- The position bias and its pretrained window are not affected by any of this.

Legend: B images; T tokens of the whole batch; nW windows of the whole batch; N slots of a window
(Mh * Mw); S slots of all windows; C channels.  A size is (height, width) in tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from swinv2_backbone.packing import Size


class Partition(NamedTuple):
    """The geometry of attention: how the maps of a batch are cut into windows."""

    sizes: tuple[Size, ...]  # (height, width) of each image's map, in tokens
    window: Size  # (Mh, Mw)
    shifted: bool
    square_small_maps: bool = False  # see window_of

    def window_of(self, size: Size) -> tuple[Size, bool]:
        """Return the window of one map, and whether it is shifted along the axes it does not fit.

        With ``square_small_maps``, a map whose shorter side is one window or less has windows as
        wide and as high as that side, and is not shifted along its longer side either.
        """
        side = min(size)
        if self.square_small_maps and side <= self.window[0]:  # the window is square
            return (side, side), False
        return self.window, self.shifted


EMPTY = -1  # token and region of an empty slot


class _Permute(torch.autograd.Function):
    """Select the rows ``index`` of ``x``; rows where ``empty`` is True are zero.

    The gradient is a gather by the inverse permutation, ``inverse`` and ``inverse_empty``, where
    autograd would scatter-add row by row.
    """

    @staticmethod
    def forward(
        ctx: Any,
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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Permute.apply(grad, *ctx.saved_tensors), None, None, None, None


@dataclass(frozen=True, eq=False)
class WindowPermutation:
    """The permutation from map order to window order; every token has a slot.

    Attributes:
        token_of_slot: (S,) int32, index of the token in every slot; 0 where the slot is empty.
        slot_of_token: (T,) int32, index of the slot of every token.
        empty: (S, 1), True where a slot is empty; None if there is no empty slot.
    """

    token_of_slot: Tensor
    slot_of_token: Tensor
    empty: Tensor | None

    @classmethod
    def from_tokens(cls, tokens: Tensor, device: torch.device) -> WindowPermutation:
        """Build the permutation from the token in every slot (S,), EMPTY where there is none."""
        empty = tokens == EMPTY
        taken = torch.nonzero(~empty).flatten()
        slot_of_token = torch.empty_like(taken)
        slot_of_token[tokens[taken]] = taken
        return cls(
            tokens.clamp(min=0).int().to(device),
            slot_of_token.int().to(device),
            empty[:, None].to(device) if empty.any() else None,
        )

    def gather(self, tokens: Tensor) -> Tensor:
        """(T, C) -> (S, C); empty slots are zero."""
        return _Permute.apply(tokens, self.token_of_slot, self.empty, self.slot_of_token, None)

    def scatter(self, slots: Tensor) -> Tensor:
        """(S, C) -> (T, C); the values of empty slots are dropped."""
        return _Permute.apply(slots, self.slot_of_token, None, self.token_of_slot, self.empty)


@dataclass(frozen=True, eq=False)
class WindowLayout:
    """The windows of a batch for one window size and shift.

    Attributes:
        window: (Mh, Mw), the window in tokens.
        permutation: from tokens to the slots of all windows, window after window.
        regions: (nW, N) int8, the region of the (rolled) map that a slot belongs to, EMPTY if the
            slot is empty; None if every token attends to its whole window.
    """

    window: Size
    permutation: WindowPermutation
    regions: Tensor | None

    def to_windows(self, tokens: Tensor) -> Tensor:
        """(T, C) -> (nW, N, C); empty slots are zero."""
        return self.permutation.gather(tokens).view(-1, prod(self.window), tokens.shape[-1])

    def to_tokens(self, windows: Tensor) -> Tensor:
        """(nW, N, C) -> (T, C); the values of empty slots are dropped."""
        return self.permutation.scatter(windows.flatten(0, 1))

    def attn_mask(self) -> Tensor | None:
        """Return the attention mask (nW, N, N), or None if nothing is masked.

        True masks key j for query i, as in ``nn.MultiheadAttention``.  A token attends to the
        tokens of its own region.  The query of an empty slot attends to every token of its window:
        its result is dropped, but a fully masked row would be NaN.
        """
        if self.regions is None:
            return None
        query, key = self.regions[:, :, None], self.regions[:, None, :]
        return (key == EMPTY) | ((query != key) & (query != EMPTY))


@lru_cache(maxsize=64)
def window_layout(partition: Partition, device: torch.device) -> WindowLayout:
    """Partition the maps of a batch into windows.

    The 64 most recent layouts are cached.
    """
    sizes, slots = partition.sizes, _clipped(partition)
    # The result is cached, so it must not be an inference tensor: autograd could not use it.
    with torch.inference_mode(False):
        by_size = {
            size: _slots_of_map(size, slots, *partition.window_of(size)) for size in set(sizes)
        }
        tokens = _number_through([by_size[size][0] for size in sizes], sizes)
        regions = torch.cat([by_size[size][1] for size in sizes])
        return WindowLayout(
            window=slots,
            permutation=WindowPermutation.from_tokens(tokens, device),
            regions=regions.to(device, torch.int8) if regions.any() else None,
        )


def _clipped(partition: Partition) -> Size:
    """Return the height and width of the largest window that the maps of the batch have."""
    windows = [(size, partition.window_of(size)[0]) for size in partition.sizes]
    height, width = (max(min(size[i], window[i]) for size, window in windows) for i in (0, 1))
    return height, width


def _slots_of_map(size: Size, slots: Size, window: Size, shifted: bool) -> tuple[Tensor, Tensor]:
    """Return the token and the region of every slot of one map, (nW, N) each.

    ``slots`` is the clipped window of the batch.  The map's own ``window`` is the distance between
    its windows, and decides whether the map fits in one window and is therefore not shifted.
    """
    rows, row_regions = _slots_of_axis(size[0], slots[0], window[0], shifted)
    cols, col_regions = _slots_of_axis(size[1], slots[1], window[1], shifted)
    rows, row_regions = rows[:, None, :, None], row_regions[:, None, :, None]  # (nh, 1, Mh, 1)
    cols, col_regions = cols[None, :, None, :], col_regions[None, :, None, :]  # (1, nw, 1, Mw)
    empty = (row_regions == EMPTY) | (col_regions == EMPTY)
    tokens = torch.where(empty, EMPTY, rows * size[1] + cols)
    # Rolling an axis joins its two ends in the last window: two regions per axis, four in all.
    regions = torch.where(empty, EMPTY, 2 * row_regions + col_regions)
    return tokens.reshape(-1, prod(slots)), regions.reshape(-1, prod(slots))


def _slots_of_axis(length: int, slots: int, window: int, shifted: bool) -> tuple[Tensor, Tensor]:
    """Return coordinate and region (0, 1 or EMPTY) of every slot along one axis, (n, M) each."""
    shift, window = window // 2 if shifted and length > window else 0, min(window, slots)
    windows = -(-length // window)
    rolled = torch.arange(windows * window) + shift
    coordinates = rolled % (windows * window)
    regions = (rolled >= windows * window).long()
    regions[coordinates >= length] = EMPTY
    more = (0, slots - window)  # the windows of other maps of the batch may be larger
    return (
        F.pad(coordinates.view(windows, window), more),
        F.pad(regions.view(windows, window), more, value=EMPTY),
    )


def _number_through(tokens: list[Tensor], sizes: Sequence[Size]) -> Tensor:
    """Join token indices per image (each from 0, or EMPTY) into indices of the whole batch."""
    numbered, first = [], 0
    for own, size in zip(tokens, sizes):
        own = own.flatten()
        numbered.append(torch.where(own == EMPTY, EMPTY, own + first))
        first += prod(size)
    return torch.cat(numbered)
