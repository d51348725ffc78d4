"""The class numbers of a large picture, written row by row to a temporary file.

Legend: H, W are the height and width of the picture.
"""

from __future__ import annotations

import tempfile
from typing import IO

import numpy as np
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.inference.tiling.geometry import Tile, Tiling, owned

IN_MEMORY = 1 << 26  # bytes of a label map that is not written to a file
COLUMNS = 512  # of a label map that are encoded together


class LabelRows:
    """Collects the class numbers of tiles, row by row, each pixel from one tile.

    Neighbors divide the strip that they share in its middle, so that each pixel has the class that
    it gets far from the sides of a tile.

    Args:
        many: there may be more than 256 classes.
    """

    def __init__(self, tiling: Tiling, height: int, width: int, many: bool):
        self._dtype, self._shape = np.dtype(np.uint16 if many else np.uint8), (height, width)
        rows, columns = tiling.intervals(height), tiling.intervals(width)
        self._rows = dict(zip((start for start, _ in rows), owned(rows)))
        self._columns = dict(zip((start for start, _ in columns), owned(columns)))
        large = height * width * self._dtype.itemsize > IN_MEMORY
        # Deleted when the map of it is: it outlives this object.
        self._file: IO[bytes] | None = tempfile.TemporaryFile() if large else None  # noqa: SIM115
        self._map = None if large else np.empty(self._shape, self._dtype)
        self._band: np.ndarray | None = None

    def place(self, tile: Tile) -> Tile:
        """Return the pixels that a tile decides."""
        (top, bottom), (left, right) = self._rows[tile.top], self._columns[tile.left]
        return Tile(left, top, right, bottom)

    def add(self, tile: Tile, labels: np.ndarray) -> None:
        """Add the class numbers of the next tile."""
        left, top, right, bottom = self.place(tile)
        part = labels[top - tile.top : bottom - tile.top, left - tile.left : right - tile.left]
        if self._map is not None:
            self._map[top:bottom, left:right] = part
            return
        if self._band is None:
            self._band = np.empty((bottom - top, self._shape[1]), self._dtype)
        self._band[:, left:right] = part
        if right == self._shape[1]:
            assert self._file is not None
            self._file.write(self._band.data)
            self._band = None

    def finish(self) -> np.ndarray:
        """Return (H, W) class numbers: an array, or a map of a file that is deleted with it."""
        if self._map is not None:
            return self._map
        assert self._file is not None
        self._file.flush()
        return np.memmap(self._file, self._dtype, mode="r+", shape=self._shape)


def regions(labels: np.ndarray) -> dict[int, dict]:
    """Return the pixels of each class of a label map as COCO's RLE, by class number.

    The map is read in strips of columns, the order of COCO's RLE, and only borders between classes
    are kept: a map of a file needs no memory of its size.

    Args:
        labels: (H, W) class numbers.
    """
    height, width = labels.shape
    starts, classes = [], []
    for left in range(0, width, COLUMNS):
        strip = labels[:, left : left + COLUMNS].T.ravel()
        first = np.concatenate([[0], np.flatnonzero(strip[1:] != strip[:-1]) + 1])
        starts.append(first + left * height)
        classes.append(strip[first])
    start, of = np.concatenate(starts), np.concatenate(classes)
    end = np.append(start[1:], height * width)
    found = {}
    for number in np.unique(of).tolist():
        mine = of == number
        first, last = start[mine], end[mine]
        joined = first[1:] == last[:-1]  # a run that goes on in the next strip
        first, last = first[np.append(True, ~joined)], last[np.append(~joined, True)]
        borders = np.stack([first, last], axis=1).ravel()
        counts = np.diff(np.concatenate([[0], borders, [height * width]]))
        rle = {"counts": counts[: None if counts[-1] else -1].tolist(), "size": [height, width]}
        found[number] = coco_mask.frPyObjects(rle, height, width)
    return found
