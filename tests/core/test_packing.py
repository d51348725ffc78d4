"""Packed tokens: packing and unpacking maps, their neighborhoods and sizes."""

from math import prod

import pytest
import torch
from models import counted
from oracle import concat_neighbors

from swinv2_backbone.packing import neighbors, pack, shrink, unpack

BATCHES = [((5, 7),), ((1, 1),), ((8, 4), (8, 4)), ((3, 9), (7, 2), (1, 1)), ((6, 1), (1, 6))]


def test_neighbors_go_down_the_column_first():
    assert neighbors(counted(4, 1), ((2, 2),)).tolist() == [[1, 3, 2, 4]]
    assert neighbors(counted(3, 1), ((3, 1),)).tolist() == [[1, 2, 0, 0], [3, 0, 0, 0]]


@pytest.mark.parametrize(
    "sizes", [*(((h, w),) for h in range(1, 6) for w in range(1, 6)), *BATCHES]
)
def test_neighbors_equal_the_oracles(sizes):
    maps = [counted(prod(size), 3) + 1000 * i for i, size in enumerate(sizes)]
    merged = neighbors(torch.cat(maps), sizes)
    expected = [concat_neighbors(one.view(*size, 3)) for one, size in zip(maps, sizes)]
    assert torch.equal(merged, torch.cat([one.flatten(0, 1) for one in expected]))


@pytest.mark.parametrize("sizes", [((3, 5), (3, 5)), ((3, 4), (1, 5)), ((1, 1), (2, 2))])
def test_unpack_is_the_inverse_of_pack_and_zero_outside(sizes):
    maps = counted(2 * 7, 3 * 5).view(2, 7, 3, 5)
    tokens = pack(maps.permute(0, 2, 3, 1), sizes)
    assert tokens.shape == (sum(map(prod, sizes)), 7)
    first_row = maps[0, :, 0, : sizes[0][1]].T
    assert torch.equal(tokens[: sizes[0][1]], first_row)
    inside = torch.zeros(2, 1, 3, 5, dtype=torch.bool)
    for one, (h, w) in zip(inside, sizes):
        one[:, :h, :w] = True
    unpacked = unpack(tokens, sizes, (3, 5))
    assert torch.equal(unpacked, maps * inside)
    assert unpacked.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pack(unpacked.permute(0, 2, 3, 1), sizes), tokens)


def test_unpack_copies_nothing_where_all_maps_are_of_one_size():
    tokens = counted(2 * 15, 3)
    assert unpack(tokens, ((3, 5), (3, 5)), (3, 5)).data_ptr() == tokens.data_ptr()


def test_shrink_rounds_up():
    assert shrink([(1, 4), (5, 8), (9, 33)], 4) == ((1, 1), (2, 2), (3, 9))
