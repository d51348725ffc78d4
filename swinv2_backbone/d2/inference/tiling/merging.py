"""Objects of a large picture from the pieces that its tiles show.

A piece that is cut by its own tile but that another tile shows with its surroundings is left to
that tile. The others are joined as :mod:`linking` tells. Of joined pieces, one that no tile cuts
and that no other exceeds is the object as it is; else the object is the union of the pieces, with
the mean of their scores weighted by area.

Legend: H, W are the height and width of the picture; N is the number of
boxes. Boxes are (x0, y0, x1, y1) in pixels of the picture.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.inference.tiling.geometry import Tile, shared
from swinv2_backbone.d2.inference.tiling.kept import Kept
from swinv2_backbone.d2.inference.tiling.linking import Shown, links, meets
from swinv2_backbone.d2.inference.tiling.pieces import Pieces, margins

BOX, SCORE, CLASS, MARGIN, AREA = slice(0, 4), 4, 5, 6, 7  # columns of kept pieces
EXCESS = 0.1  # of the width or height of an uncut piece, by which others may exceed it


class Objects(NamedTuple):
    """The objects of a picture, by descending score.

    Attributes:
        boxes: (N, 4) float64.
        scores: (N,) float64.
        classes: (N,) int64.
        masks: compressed counts of COCO's RLE for the whole picture; None without masks.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: list[bytes] | None


class Merger:
    """Collects the pieces of tiles, row by row, and joins them.

    The masks of tiles that later tiles still overlap are kept as crops, all others as run lengths.

    Args:
        tiles: all tiles of the picture.
        overlap: smallest overlap of neighbors.
        masks: the model predicts masks.
    """

    def __init__(self, tiles: list[Tile], height: int, width: int, overlap: int, masks: bool):
        self._tiles, self._size = np.array(tiles).reshape(-1, 4), (height, width)
        self._edge = max(1, overlap // 32)  # pixels within which a box ends at the side of its tile
        self._open: list[Shown] = []
        self._parents: list[int] = []
        self._kept = Kept(height, width, masks)

    def add(self, tile: Tile, pieces: Pieces) -> None:
        """Add the pieces of the next tile."""
        margin = margins(pieces.boxes, tile, *self._size)
        keep = (margin >= self._edge) | ~self._shown_better(tile, pieces.boxes)
        pieces, margin = pieces.chosen(keep), margin[keep]
        shown = Shown(tile, pieces, margin < self._edge, len(self._parents))
        self._parents.extend(range(shown.first, shown.first + len(pieces)))
        self._kept.add(pieces, margin)
        self._open = [other for other in self._open if other.tile.bottom > tile.top]
        for other in self._open:
            if zone := shared(tile, other.tile):
                for one, another in links(shown, other, zone):
                    self._join(shown.first + one, other.first + another)
        self._open.append(shown)

    def finish(self) -> Objects:
        """Return the objects."""
        table = self._kept.table()
        groups: dict[int, list[int]] = {}
        for piece in range(len(self._parents)):
            groups.setdefault(self._root(piece), []).append(piece)
        order, united = [], {}
        for root, group in groups.items():
            rows = table[group]
            whole = 0 if len(group) == 1 else self._whole(rows)
            if whole is None:
                weights = np.maximum(rows[:, AREA], 1e-9)
                table[root, SCORE] = np.average(rows[:, SCORE], weights=weights)
                table[root, BOX] = _around(rows[:, BOX])
                united[root] = group
            order.append(root if whole is None else group[whole])
        index = np.array(order, np.int64)
        index = index[np.argsort(-table[index, SCORE], kind="stable")]
        masks = None
        if self._kept.has_masks:
            masks = [self._mask(united.get(piece, [piece])) for piece in index.tolist()]
        rows = table[index]
        return Objects(rows[:, BOX], rows[:, SCORE], rows[:, CLASS].astype(np.int64), masks)

    def _shown_better(self, tile: Tile, boxes: np.ndarray) -> np.ndarray:
        """Return True for boxes that another tile shows uncut, (N,)."""
        found = np.zeros(len(boxes), bool)
        for row in self._tiles[meets(self._tiles, tile)] if len(boxes) else ():
            other = Tile(*row.tolist())
            if other != tile:
                found |= margins(boxes, other, *self._size) >= self._edge
        return found

    def _whole(self, rows: np.ndarray) -> int | None:
        """Return the piece farthest from seams that no tile cuts and none exceeds, or None."""
        best = int(rows[:, MARGIN].argmax())
        if rows[best, MARGIN] < self._edge:
            return None
        box, around = rows[best, BOX], _around(rows[:, BOX])
        allowed = np.maximum(EXCESS * (box[2:] - box[:2]), self._edge)
        exceeded = np.abs(box - around).reshape(2, 2).max(axis=0) > allowed
        return None if exceeded.any() else best

    def _mask(self, pieces: list[int]) -> bytes:
        """Return the counts of the union of masks."""
        if len(pieces) == 1:
            return self._kept.mask(pieces[0])
        parts = [{"size": list(self._size), "counts": self._kept.mask(one)} for one in pieces]
        return coco_mask.merge(parts, intersect=False)["counts"]

    def _root(self, piece: int) -> int:
        while self._parents[piece] != piece:
            self._parents[piece] = self._parents[self._parents[piece]]
            piece = self._parents[piece]
        return piece

    def _join(self, one: int, other: int) -> None:
        first, second = sorted((self._root(one), self._root(other)))
        self._parents[second] = first


def _around(boxes: np.ndarray) -> np.ndarray:
    """Return the smallest box that holds all."""
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
