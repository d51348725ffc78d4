"""Windows without padding, rolling or masks: the geometry of the kernels.  Pure functions.

Shifting, rolling and masking have the following effect: every axis of a map is cut into segments,
and a token attends to the tokens of its own clipped window, which is a segment of rows by a segment
of columns.  Unshifted windows of M tokens cut at M, 2M, ..., shifted ones at M / 2, M / 2 + M, ...;
the first and the last segment may be shorter.  A clipped window contains only real tokens, so there
is nothing to pad or mask.  The position bias depends only on offsets, so the bias of a clipped
window is the corner of the bias of a whole window.

A tile is the unit of work on a CPU: consecutive packed tokens that form clipped windows.

(``windows.py`` describes the same windows with padding, rolling and a mask; tests compare the two.)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate, groupby
from typing import NamedTuple

import torch
from torch import Tensor

from swinv2_backbone.packing import Size
from swinv2_backbone.windows import Partition


def cut(length: int, window: int, shifted: bool) -> tuple[int, ...]:
    """Return the lengths of the segments of an axis, in order."""
    if length <= window:  # fits in one window, and is not shifted
        return (length,)
    first = window // 2 if shifted and window > 1 else window
    cuts = [0, *range(first, length, window), length]
    return tuple(end - start for start, end in zip(cuts, cuts[1:]))


@lru_cache(maxsize=64)
def clipped_windows(partition: Partition, device: torch.device) -> Tensor:
    """List the clipped windows of a batch, (nW, 4) int32: first token, map width, height, width.

    The token at (row, column) of a window is ``first token + row * map width + column``.
    The 64 most recent tables are cached.
    """
    table, start = [], 0
    for height, width in partition.sizes:
        window, shifted = partition.window_of((height, width))
        row = 0
        for h in cut(height, window[0], shifted):
            column = 0
            for w in cut(width, window[1], shifted):
                table.append((start + row * width + column, width, h, w))
                column += w
            row += h
        start += height * width
    with torch.inference_mode(False):
        return torch.tensor(table, dtype=torch.int32, device=device)


class Group(NamedTuple):
    """Clipped windows of one size in a tile: k rows of n windows, in each of the tile's maps."""

    size: Size  # (h, w) of one window
    grid: Size  # (k, n)
    first: int  # first token of the first window, within the tile
    steps: Size  # tokens from one window to the next, downward and to the right
    maps: int
    map_size: Size

    def windows(self, tokens: Tensor, parts: int = 1) -> Tensor:
        """(tokens of the tile, parts * G, d) -> (parts, maps, k, n, G, h, w, d), a view."""
        (h, w), (k, n), (down, right) = self.size, self.grid, self.steps
        (height, width), (token, head, channel) = self.map_size, tokens.stride()
        heads = tokens.shape[1] // parts
        to_window = (height * width * token, down * token, right * token)
        return tokens.as_strided(
            (parts, self.maps, k, n, heads, h, w, tokens.shape[2]),
            (heads * head, *to_window, head, width * token, token, channel),
            tokens.storage_offset() + self.first * token,
        )

    @property
    def num_windows(self) -> int:
        return self.maps * self.grid[0] * self.grid[1]


class Tile(NamedTuple):
    """Consecutive packed tokens that form clipped windows: whole maps, or rows of one map."""

    tokens: slice  # of the batch
    groups: tuple[Group, ...]


@lru_cache(maxsize=256)
def tiles(partition: Partition, most_tokens: int) -> tuple[Tile, ...]:
    """Cut a batch into tiles of at most ``most_tokens``, or of one row of windows if that is more.

    The 256 most recent results are cached.
    """
    found, start = [], 0
    for (height, width), equal in groupby(partition.sizes):
        window, shifted = partition.window_of((height, width))
        left, together = len(tuple(equal)), max(1, most_tokens // (height * width))
        rows = cut(height, window[0], shifted)
        parts = [rows] if height * width <= most_tokens else _split(rows, width, most_tokens)
        while left:
            count = min(left, together)
            for part in parts:
                end = start + count * sum(part) * width
                groups = _groups(part, cut(width, window[1], shifted), count)
                found.append(Tile(slice(start, end), groups))
                start = end
            left -= count
    return tuple(found)


def _split(rows: tuple[int, ...], width: int, most_tokens: int) -> list[tuple[int, ...]]:
    """Join consecutive segments of rows while they have no more than ``most_tokens``."""
    parts: list[list[int]] = []
    for length in rows:
        if parts and (sum(parts[-1]) + length) * width <= most_tokens:
            parts[-1].append(length)
        else:
            parts.append([length])
    return [tuple(part) for part in parts]


def _groups(rows: tuple[int, ...], columns: tuple[int, ...], maps: int) -> tuple[Group, ...]:
    width = sum(columns)
    return tuple(
        Group(
            size=(h, w),
            grid=(k, n),
            first=top * width + left,
            steps=(down * width, right),
            maps=maps,
            map_size=(sum(rows), width),
        )
        for h, k, top, down in _runs(rows)
        for w, n, left, right in _runs(columns)
    )


def _runs(segments: tuple[int, ...]) -> Iterator[tuple[int, int, int, int]]:
    """Yield (length, count, first start, distance between starts) for segments of equal length.

    The distance is constant, because whole windows are adjacent and there are at most two shorter
    segments, the first and the last.
    """
    starts = [0, *accumulate(segments)]
    for length in dict.fromkeys(segments):
        own = [start for start, other in zip(starts, segments) if other == length]
        yield length, len(own), own[0], own[1] - own[0] if len(own) > 1 else 0
