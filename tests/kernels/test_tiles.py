"""Clipped windows and tiles, compared with the oracle's pairs of tokens that may attend."""

from __future__ import annotations

from math import prod

import pytest
import torch
from oracle import may_attend
from torch import Tensor

from swinv2_backbone.kernels.tiles import Tile, clipped_windows, cut, tiles
from swinv2_backbone.packing import Size
from swinv2_backbone.windows import Partition

CPU = torch.device("cpu")
SIDES = range(1, 12)
WINDOWS = [(1, 1), (2, 2), (3, 2), (4, 4), (5, 3), (8, 8)]
BATCHES = [
    ((9, 13),),
    ((20, 17), (20, 17), (5, 3)),
    ((1, 1),),
    ((4, 4),) * 5,
    ((7, 2), (3, 9), (3, 9), (7, 2)),
]


def tokens_of(tile: Tile) -> list[Tensor]:
    """List the tokens (R, N) of the windows of every group of a tile, as indices of the batch."""
    own = torch.arange(tile.tokens.start, tile.tokens.stop)[:, None, None]
    found = []
    for group in tile.groups:
        windows = group.windows(own)
        assert windows.shape[5:7] == group.size and prod(windows.shape[1:4]) == group.num_windows
        found.append(windows.reshape(group.num_windows, -1))
    return found


def attending(groups: list[Tensor], tokens: int) -> Tensor:
    """Return the pairs of tokens that share a clipped window, (T, T) bool."""
    owner = torch.full((tokens,), -1)
    number = 0
    for group in groups:
        for own in group:
            assert (owner[own] == -1).all()  # no token is in two windows
            owner[own] = number
            number += 1
    assert (owner >= 0).all()  # every token is in one
    return owner[:, None] == owner[None]


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("window", range(1, 7))
def test_cuts_are_those_of_the_oracle_at_every_length(window, shifted):
    for length in range(1, 40):
        segments = cut(length, window, shifted)
        assert sum(segments) == length and max(segments) <= window and min(segments) >= 1
        allowed = torch.block_diag(*(torch.ones(n, n) for n in segments)).bool()
        assert torch.equal(allowed, may_attend((length, 1), (window, 1), shifted))


@pytest.mark.parametrize("most_tokens", [1, 30, 100, 10**6])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("sizes", BATCHES)
def test_tiles_let_tokens_attend_as_the_oracle_says(sizes, window, shifted, most_tokens):
    check_tiles(Partition(sizes, window, shifted), most_tokens)


@pytest.mark.parametrize("most_tokens", [1, 30, 10**6])
def test_small_maps_have_square_windows_where_asked_for(most_tokens):
    partition = Partition(((7, 3), (2, 2), (2, 9), (9, 11), (4, 12)), (4, 4), True, True)
    check_tiles(partition, most_tokens)
    check_table(partition)


def check_tiles(partition: Partition, most_tokens: int) -> None:
    found = tiles(partition, most_tokens)
    ends = [0, *(tile.tokens.stop for tile in found)]
    assert [tile.tokens.start for tile in found] == ends[:-1]
    total = sum(map(prod, partition.sizes))
    assert ends[-1] == total
    groups = [group for tile in found for group in tokens_of(tile)]
    assert torch.equal(attending(groups, total), expected_of(partition))


def expected_of(partition: Partition) -> Tensor:
    sizes, *windows = partition
    return torch.block_diag(*(may_attend(size, *windows) for size in sizes)).bool()


@pytest.mark.parametrize("sizes", BATCHES)
def test_tiles_are_as_large_as_allowed_and_no_larger(sizes):
    for most_tokens in (1, 30, 100):
        for tile in tiles(Partition(sizes, (4, 4), True), most_tokens):
            rows = {group.size[0] for group in tile.groups}
            tokens = tile.tokens.stop - tile.tokens.start
            one_row = len(rows) == 1 and all(g.maps * g.grid[0] == 1 for g in tile.groups)
            assert tokens <= most_tokens or one_row
    (whole,) = tiles(Partition(((8, 8),) * 7, (4, 4), True), 64 * 7)
    assert whole.tokens == slice(0, 64 * 7)


def test_shifted_maps_of_whole_windows_have_four_groups():
    (tile,) = tiles(Partition(((16, 24),), (4, 4), True), 10**6)
    assert {group.size: group.grid for group in tile.groups} == {
        (2, 2): (2, 2),
        (2, 4): (2, 5),
        (4, 2): (3, 2),
        (4, 4): (3, 5),
    }


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("sizes", BATCHES)
def test_the_table_of_clipped_windows_agrees(sizes: tuple[Size, ...], window, shifted):
    check_table(Partition(sizes, window, shifted))


def check_table(partition: Partition) -> None:
    groups = []
    for first, stride, h, w in clipped_windows(partition, CPU).tolist():
        rows = torch.arange(h)[:, None] * stride + torch.arange(w)
        groups.append((first + rows).reshape(1, -1))
    total = sum(map(prod, partition.sizes))
    assert torch.equal(attending(groups, total), expected_of(partition))


def test_parts_of_heads_come_apart():
    tokens = torch.arange(12 * 6 * 2).view(12, 6, 2)  # a map of 3x4, q, k and v of 2 heads
    (tile,) = tiles(Partition(((3, 4),), (8, 8), False), 100)
    (group,) = tile.groups
    parts = group.windows(tokens, parts=3)
    assert parts.shape == (3, 1, 1, 1, 2, 3, 4, 2)
    for part in range(3):
        own = tokens[:, 2 * part : 2 * part + 2].transpose(0, 1).reshape(2, 3, 4, 2)
        assert torch.equal(parts[part, 0, 0, 0], own)


def test_caches_are_bounded_and_survive_inference_mode():
    assert tiles.cache_info().maxsize and clipped_windows.cache_info().maxsize
    with torch.inference_mode():
        assert not clipped_windows(Partition(((11, 5),), (3, 3), True), CPU).is_inference()
