"""Geometry of tiles: which rectangles cover a picture, and which tile decides for which pixels.

All lengths are pixels of the original picture. Pure functions and immutable values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

TOKEN = 32  # pixels of the model's input: the stride of its last stage
WINDOW = 8  # tokens of a window
SMALLEST = 32  # pixels of a tile


class Tile(NamedTuple):
    """A rectangle of a picture; ``right`` and ``bottom`` are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


@dataclass(frozen=True)
class Tiling:
    """How a large picture is divided, and how its tiles enter the model.

    A tile is not resized to the test size of the config, because all tiles of a picture must have
    one scale: it enters the model at ``scale``, which is 1 unless stated. The result is that of the
    whole picture at this scale, except near seams.

    Tiles start at multiples of 32 pixels of the model's input, where the tokens of all stages
    coincide with those of the whole picture, and at multiples of up to 256 as far as the stride
    allows, where windows of 8 tokens coincide too: then a detection that is far enough from seams
    is exactly that of the whole picture. Elsewhere scores would differ from the untiled ones by ten
    times as much, far from seams too. For this, the last tile of a row or column, which is moved
    inward, may be smaller by up to 255 pixels.

    Args:
        tile: side of the square tiles in pixels of the picture.
        overlap: smallest width of the strip that two neighboring tiles share. Objects are joined by
            what both tiles see there.
        scale: factor by which tiles are resized before the model. Choose it so that objects have
            the size that they had in training.
        batch_size: tiles that enter the model together.

    Raises:
        ValueError: a value is out of range.
    """

    tile: int = 1024
    overlap: int = 256
    scale: float = 1.0
    batch_size: int = 1

    def __post_init__(self) -> None:
        for name, least in (("tile", SMALLEST), ("overlap", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be a positive number, got {self.scale!r}")
        if self.overlap >= self.tile:
            raise ValueError(
                f"overlap must be smaller than the tile, got overlap {self.overlap} and tile "
                f"{self.tile}: a quarter of the tile is usual"
            )
        if round(self.tile * self.scale) < SMALLEST:
            raise ValueError(
                f"a tile of {self.tile} pixels at scale {self.scale} has fewer than {SMALLEST} "
                "pixels for the model: choose a larger tile or scale"
            )
        if self.tile - self.overlap < self.step:
            raise ValueError(
                f"tiles start at multiples of {self.step} pixels, so the overlap of tiles of "
                f"{self.tile} is at most {self.tile - self.step}, got {self.overlap}"
            )

    @classmethod
    def given(
        cls,
        tile: int,
        overlap: int | None = None,
        scale: float | None = None,
        batch_size: int | None = None,
    ) -> Tiling:
        """Return the tiles of a user's arguments; the overlap is a quarter of the tile if None."""
        if overlap is None:
            overlap = max(tile // 4, 1) if isinstance(tile, int) else 1
        return cls(tile, overlap, 1.0 if scale is None else scale, batch_size or 1)

    @property
    def step(self) -> int:
        """Pixels of the picture per token of the last stage; 1 if the scale allows no alignment."""
        step = TOKEN / self.scale
        return max(int(step), 1) if step.is_integer() else 1

    @property
    def stride(self) -> int:
        """Distance between tiles: ``tile - overlap``, rounded down to a multiple of ``step``."""
        distance = self.tile - self.overlap
        return distance - distance % self.step

    @property
    def grid(self) -> int:
        """Pixels of which all tiles start at multiples, the last ones too."""
        return self.step * math.gcd(self.stride // self.step, WINDOW) if self.step > 1 else 1

    def tiles(self, height: int, width: int) -> list[Tile]:
        """Return the tiles of a picture, row by row."""
        rows, columns = self.intervals(height), self.intervals(width)
        return [Tile(left, top, right, bottom) for top, bottom in rows for left, right in columns]

    def intervals(self, length: int) -> list[tuple[int, int]]:
        """Return the sides of the tiles along an axis as (start, end)."""
        return cover(length, self.tile, self.stride, self.grid)


def cover(length: int, tile: int, stride: int, grid: int = 1) -> list[tuple[int, int]]:
    """Cover 0 ... ``length`` by intervals (start, end) whose starts are multiples of ``grid``.

    All but the last are ``tile`` long. The last is moved inward to end at ``length``; up to
    ``grid - 1`` pixels shorter, where it must be to start at a multiple. A shorter axis has one.
    """
    if length <= tile:
        return [(0, length)]
    last = -(-(length - tile) // grid) * grid
    starts = [*range(0, last, stride), last]
    return [(start, min(start + tile, length)) for start in starts]


def owned(along: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Divide an axis among its intervals, so that each pixel is far from the ends of its own.

    Two neighbors meet in the middle of what they share.
    """
    cuts = [(start + end) // 2 for (_, end), (start, _) in itertools.pairwise(along)]
    return list(itertools.pairwise([along[0][0], *cuts, along[-1][1]]))


def shared(one: Tile, other: Tile) -> Tile | None:
    """Return the rectangle that two tiles share, or None."""
    zone = Tile(*map(max, one[:2], other[:2]), *map(min, one[2:], other[2:]))
    return zone if zone.width > 0 and zone.height > 0 else None
