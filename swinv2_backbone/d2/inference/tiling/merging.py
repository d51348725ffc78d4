"""Objects of a large picture from the pieces that its tiles show.

A piece that is cut by its own tile but that another tile shows with its surroundings is left to
that tile. The others are joined as :mod:`linking` tells. Of joined pieces, one that no tile cuts and that no other exceeds
is the object as it is; else the object is the union of the pieces, with the mean of their scores
weighted by area.

Legend: H, W are the height and width of the picture; N is the number of
boxes. Boxes are (x0, y0, x1, y1) in pixels of the picture.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.inference.tiling.geometry import Tile, shared
from swinv2_backbone.d2.inference.tiling.linking import Shown, links, meets
from swinv2_backbone.d2.inference.tiling.pieces import Pieces, margins, run_lengths

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
        self._kept: list[tuple[np.ndarray, ...]] = []
        self._masks: list[bytes] | None = [] if masks else None

    def add(self, tile: Tile, pieces: Pieces) -> None:
        """Add the pieces of the next tile."""
        margin = margins(pieces.boxes, tile, *self._size)
        keep = (margin >= self._edge) | ~self._shown_better(tile, pieces.boxes)
        pieces, margin = pieces.chosen(keep), margin[keep]
        shown = Shown(tile, pieces, margin < self._edge, len(self._parents))
        self._parents.extend(range(shown.first, shown.first + len(pieces)))
        areas = np.prod(pieces.boxes[:, 2:] - pieces.boxes[:, :2], axis=1)
        if self._masks is not None and pieces.crops is not None:
            self._masks += [run_lengths(crop, *self._size) for crop in pieces.crops]
            areas = np.array([int(np.bitwise_count(one.bits).sum()) for one in pieces.crops])
        self._kept.append((pieces.boxes, pieces.scores, pieces.classes, margin, areas))
        self._open = [other for other in self._open if other.tile.bottom > tile.top]
        for other in self._open:
            if zone := shared(tile, other.tile):
                for one, another in links(shown, other, zone):
                    self._join(shown.first + one, other.first + another)
        self._open.append(shown)

    def finish(self) -> Objects:
        """Return the objects."""
        boxes, scores, classes, margin, areas = (
            np.concatenate(column) if self._kept else np.zeros((0, 4)[: 2 - bool(index)])
            for index, column in enumerate(zip(*self._kept) if self._kept else [()] * 5)
        )
        groups: dict[int, list[int]] = {}
        for piece in range(len(self._parents)):
            groups.setdefault(self._root(piece), []).append(piece)
        order = []
        for root, group in groups.items():
            chosen = root if len(group) == 1 else self._whole(group, boxes, margin)
            if chosen is None:
                chosen = root
                boxes[root] = _around(boxes[group])
                scores[root] = np.average(scores[group], weights=np.maximum(areas[group], 1e-9))
                self._unite(root, group)
            order.append(chosen)
        index = np.array(order, np.int64)
        index = index[np.argsort(-scores[index], kind="stable")]
        masks = None if self._masks is None else [self._masks[one] for one in index]
        return Objects(boxes[index], scores[index], classes[index].astype(np.int64), masks)

    def _shown_better(self, tile: Tile, boxes: np.ndarray) -> np.ndarray:
        """Return True for boxes that another tile shows uncut, (N,)."""
        found = np.zeros(len(boxes), bool)
        for row in self._tiles[meets(self._tiles, tile)] if len(boxes) else ():
            other = Tile(*row.tolist())
            if other != tile:
                found |= margins(boxes, other, *self._size) >= self._edge
        return found

    def _whole(self, group: list[int], boxes: np.ndarray, margin: np.ndarray) -> int | None:
        """Return the piece farthest from seams that no tile cuts and none exceeds, or None."""
        best = max(group, key=lambda piece: margin[piece])
        if margin[best] < self._edge:
            return None
        box, around = boxes[best], _around(boxes[group])
        allowed = np.maximum(EXCESS * (box[2:] - box[:2]), self._edge)
        exceeded = np.abs(box - around).reshape(2, 2).max(axis=0) > allowed
        return None if exceeded.any() else best

    def _unite(self, root: int, group: list[int]) -> None:
        if self._masks is not None:
            parts = [{"size": list(self._size), "counts": self._masks[one]} for one in group]
            self._masks[root] = coco_mask.merge(parts, intersect=False)["counts"]

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
