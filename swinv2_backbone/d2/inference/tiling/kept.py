"""The pieces of finished tiles, in a few growing blocks of memory.

Small objects that live long, allocated between the large arrays that every tile needs for a moment,
would keep the allocator from returning the memory of those arrays: with glibc, the memory of a
process would grow by a megabyte per tile.
"""

from __future__ import annotations

from array import array

import numpy as np

from swinv2_backbone.d2.inference.tiling.pieces import Pieces, run_lengths

COLUMNS = 8  # box, score, class, margin, area


class Kept:
    """Pieces of a picture (height, width), in the order in which they were added."""

    def __init__(self, height: int, width: int, masks: bool):
        self._size = height, width
        self._numbers = array("d")
        self._counts = bytearray() if masks else None
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._numbers) // COLUMNS

    def add(self, pieces: Pieces, margin: np.ndarray) -> None:
        """Add the pieces of a tile, with their distances from its sides, (N,)."""
        areas = np.prod(pieces.boxes[:, 2:] - pieces.boxes[:, :2], axis=1)
        if self._counts is not None:
            assert pieces.crops is not None
            for crop in pieces.crops:
                self._counts += run_lengths(crop, *self._size)
                self._ends.append(len(self._counts))
            areas = np.array([crop.area() for crop in pieces.crops], np.float64)
        columns = (pieces.scores, pieces.classes, margin, areas)
        rows = np.concatenate([pieces.boxes, *(column[:, None] for column in columns)], axis=1)
        self._numbers.frombytes(rows.astype(np.float64).tobytes())

    def table(self) -> np.ndarray:
        """Return (N, 8): box, score, class, margin and area of each piece."""
        return np.frombuffer(self._numbers.tobytes(), np.float64).reshape(-1, COLUMNS).copy()

    @property
    def has_masks(self) -> bool:
        return self._counts is not None

    def mask(self, piece: int) -> bytes:
        """Return the compressed counts of a piece's mask."""
        assert self._counts is not None
        return bytes(self._counts[self._ends[piece] : self._ends[piece + 1]])
