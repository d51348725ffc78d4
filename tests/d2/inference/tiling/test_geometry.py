"""Tiles cover a picture exactly, at places where their tokens are those of the whole picture."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from swinv2_backbone.d2.inference.tiling.geometry import Tiling, cover, owned

LENGTHS = [1, 40, 64, 65, 96, 200, 255, 256, 257, 1000]
TILINGS = [(64, 16), (64, 32), (96, 32), (128, 1), (256, 64), (100, 60)]


@pytest.mark.parametrize(("tile", "overlap"), TILINGS)
@pytest.mark.parametrize("length", LENGTHS)
def test_intervals_cover_an_axis_with_the_overlap(length, tile, overlap):
    tiling = Tiling(tile, overlap)
    found = tiling.intervals(length)
    assert found[0][0] == 0 and found[-1][1] == length
    assert all(end - start == min(tile, length) for start, end in found[:-1])
    assert all(start % tiling.grid == 0 for start, _ in found)
    for (start, end), (following, last) in itertools.pairwise(found):
        assert start < following and end - following >= overlap and end < last
    last = found[-1][1] - found[-1][0]
    assert min(tile, length) - tiling.grid < last <= tile


@pytest.mark.parametrize("length", LENGTHS)
def test_every_pixel_has_one_owner_that_shows_it_at_least_as_well_as_any(length):
    along = Tiling(96, 32).intervals(length)
    owner = np.full(length, -1)
    for index, (start, end) in enumerate(owned(along)):
        assert (owner[start:end] == -1).all()
        owner[start:end] = index

    def margin(index: int, pixel: int) -> int:
        start, end = along[index]
        left = pixel - start if start else length
        return min(left, end - 1 - pixel if end < length else length)

    for pixel in range(length):
        best = max(margin(index, pixel) for index in range(len(along)))
        assert margin(int(owner[pixel]), pixel) >= best - 1


def test_without_a_grid_all_tiles_have_their_full_size():
    assert cover(1000, 300, 200) == [(0, 300), (200, 500), (400, 700), (600, 900), (700, 1000)]


def test_the_default_tiles_start_where_windows_start():
    tiling = Tiling()
    assert (tiling.stride, tiling.grid) == (768, 256)
    assert [start for start, _ in tiling.intervals(30000)][-2:] == [28416, 29184]
    assert Tiling(1024, 200).stride == 800 and Tiling(1024, 200).grid == 32
    assert Tiling(1000, 200, scale=0.5).stride == 768
    assert Tiling(1000, 200, scale=0.7).grid == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 31}, "tile must be an integer of at least 32, got 31"),
        ({"tile": 512.0}, "tile must be an integer"),
        ({"overlap": 0}, "overlap must be an integer of at least 1, got 0"),
        (
            {"overlap": 1024},
            "overlap must be smaller than the tile, got overlap 1024 and tile 1024",
        ),
        ({"overlap": 1000}, "overlap of tiles of 1024 is at most 992, got 1000"),
        ({"scale": 0.0}, "scale must be a positive number, got 0.0"),
        ({"scale": 0.01}, "fewer than 32 pixels for the model"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
    ],
)
def test_wrong_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Tiling(**options)
