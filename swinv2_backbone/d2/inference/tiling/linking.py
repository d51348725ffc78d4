"""Which pieces of two tiles belong to one object, judged in the strip that the tiles share.

Both tiles see the strip with the same pixels, so their pieces of one object agree there. Pieces of
one class are linked if

- a connected part of one in the strip agrees with one of the other (IoU of at least ``AGREE``), or
- one is the best partner of the other, and they agree in the whole strip, or most of a piece that
  is cut by a side of its tile (``COVERED`` of what the strip has of it) lies in the other.

The best partner is the one with the highest IoU, so that objects of one class that touch or lie in
each other stay apart. Models without masks are judged by the parts of their boxes in the strip.

Legend: N, M are numbers of pieces. Boxes are (x0, y0, x1, y1) in pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from swinv2_backbone.d2.inference.tiling.geometry import Tile, shared
from swinv2_backbone.d2.inference.tiling.pieces import Pieces

AGREE = 0.5
COVERED = 0.7
LEAST_PART = 0.05  # of the pixels of a piece in the strip: a part that decides


class Shown(NamedTuple):
    """The pieces of a tile.

    Attributes:
        cut: True for those that may go on beyond the tile, (N,).
        first: number of the first in the order of all pieces.
    """

    tile: Tile
    pieces: Pieces
    cut: np.ndarray
    first: int


class _Overlap(NamedTuple):
    """How two pieces agree: areas in the strip of their intersection and of each."""

    both: float
    one: float
    other: float

    @property
    def iou(self) -> float:
        return self.both / max(self.one + self.other - self.both, 1e-9)


def links(one: Shown, other: Shown, zone: Tile) -> Iterator[tuple[int, int]]:
    """Yield the pairs of pieces of two tiles, which share ``zone``, that belong to one object."""
    best: dict[tuple[bool, int], tuple[float, int]] = {}
    agreeing = set()
    mine, others = _InZone(one.pieces, zone), _InZone(other.pieces, zone)
    for first, second in _candidates(one.pieces, other.pieces, zone):
        overlap = _overlap(mine, others, first, second)
        for key, partner in (((True, first), second), ((False, second), first)):
            if overlap.iou > best.get(key, (0.0, -1))[0]:
                best[key] = overlap.iou, partner
        if _covered(overlap, bool(one.cut[first]), bool(other.cut[second])):
            agreeing.add((first, second))
        elif overlap.both and mine.has_masks and _parts_agree(mine, others, first, second):
            yield first, second
    for (of_one, piece), (_, partner) in best.items():
        pair = (piece, partner) if of_one else (partner, piece)
        if pair in agreeing:
            yield pair


class _InZone:
    """The parts of pieces in a rectangle that two tiles share."""

    def __init__(self, pieces: Pieces, zone: Tile):
        self._zone, self._crops = zone, pieces.crops
        self._boxes = np.concatenate(
            [np.maximum(pieces.boxes[:, :2], zone[:2]), np.minimum(pieces.boxes[:, 2:], zone[2:])],
            axis=1,
        )
        self._areas: dict[int, float] = {}

    @property
    def has_masks(self) -> bool:
        return self._crops is not None

    def box(self, index: int) -> np.ndarray:
        return self._boxes[index]

    def rectangle(self, index: int) -> Tile | None:
        """Return where the mask of a piece is in the zone."""
        assert self._crops is not None
        return shared(self._crops[index].place, self._zone)

    def mask(self, index: int, where: Tile | None = None) -> np.ndarray:
        """Return the mask of a piece in a part of the zone, or in all of it, (h, w) bool."""
        assert self._crops is not None
        return self._crops[index].inside(where or self._zone)

    def area(self, index: int) -> float:
        """Return how much of the zone a piece covers."""
        if index not in self._areas:
            where = self.rectangle(index) if self.has_masks else None
            if not self.has_masks:
                self._areas[index] = _area(self._boxes[index])
            else:
                pixels = 0 if where is None else np.count_nonzero(self.mask(index, where))
                self._areas[index] = float(pixels)
        return self._areas[index]


def meets(boxes: np.ndarray, zone: Tile) -> np.ndarray:
    """Return True for boxes that meet a rectangle, (N,)."""
    left_of, right_of = boxes[:, :2] < np.array(zone[2:]), boxes[:, 2:] > np.array(zone[:2])
    return np.all(np.concatenate([left_of, right_of], axis=1), axis=1, keepdims=False)


def _candidates(one: Pieces, other: Pieces, zone: Tile) -> list[tuple[int, int]]:
    """Return the pairs of pieces of one class whose boxes meet in the zone."""
    here, there = np.flatnonzero(meets(one.boxes, zone)), np.flatnonzero(meets(other.boxes, zone))
    a, b = one.boxes[here][:, None], other.boxes[there][None]
    near = (a[..., :2] < b[..., 2:]).all(axis=2) & (a[..., 2:] > b[..., :2]).all(axis=2)
    same = one.classes[here][:, None] == other.classes[there][None]
    rows, columns = np.nonzero(near & same)
    return list(zip(here[rows].tolist(), there[columns].tolist()))


def _overlap(mine: _InZone, others: _InZone, first: int, second: int) -> _Overlap:
    """Compare two pieces in the zone."""
    if not mine.has_masks:
        a, b = mine.box(first), others.box(second)
        both = np.concatenate([np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])])
        return _Overlap(_area(both), mine.area(first), others.area(second))
    here, there = mine.rectangle(first), others.rectangle(second)
    where = shared(here, there) if here and there else None
    pixels = 0
    if where is not None:
        pixels = int(np.count_nonzero(mine.mask(first, where) & others.mask(second, where)))
    return _Overlap(float(pixels), mine.area(first), others.area(second))


def _area(box: np.ndarray) -> float:
    return float(np.prod(np.maximum(box[2:] - box[:2], 0)))


def _covered(overlap: _Overlap, one_cut: bool, other_cut: bool) -> bool:
    """Return True if pieces agree in the strip, or a cut one lies in the other."""
    if not overlap.both:
        return False
    covered = (one_cut and overlap.both >= COVERED * overlap.one) or (
        other_cut and overlap.both >= COVERED * overlap.other
    )
    return overlap.iou >= AGREE or covered


def _parts_agree(mine: _InZone, others: _InZone, first: int, second: int) -> bool:
    """Return True if a connected part of a mask agrees with one of another, as a bend may have."""
    mask, other_mask = (shown.view(np.uint8) for shown in (mine.mask(first), others.mask(second)))
    count, parts = cv2.connectedComponents(mask, connectivity=8)
    other_count, other_parts = cv2.connectedComponents(other_mask, connectivity=8)
    if count == other_count == 2:  # background and one part each: they were compared before
        return False
    pairs = (parts * other_count + other_parts).ravel()
    both = np.bincount(pairs, minlength=count * other_count).reshape(count, other_count)
    one_areas, other_areas = both.sum(axis=1)[1:, None], both.sum(axis=0)[None, 1:]
    inner = both[1:, 1:]
    iou = inner / (one_areas + other_areas - inner)
    least = LEAST_PART * min(one_areas.sum(), other_areas.sum())
    return bool(((iou >= AGREE) & (inner >= least)).any())
