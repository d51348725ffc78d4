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

from swinv2_backbone.d2.inference.tiling.geometry import Tile
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
    masks: tuple[dict[int, np.ndarray], ...] = ({}, {})
    for first, second in _candidates(one.pieces, other.pieces, zone):
        overlap = _overlap(one, other, first, second, zone, masks)
        for key, partner in (((True, first), second), ((False, second), first)):
            if overlap.iou > best.get(key, (0.0, -1))[0]:
                best[key] = overlap.iou, partner
        if _covered(overlap, bool(one.cut[first]), bool(other.cut[second])):
            agreeing.add((first, second))
        elif overlap.both and masks[0] and _parts_agree(masks[0][first], masks[1][second]):
            yield first, second
    for (of_one, piece), (_, partner) in best.items():
        pair = (piece, partner) if of_one else (partner, piece)
        if pair in agreeing:
            yield pair


def meets(boxes: np.ndarray, zone: Tile) -> np.ndarray:
    """Return True for boxes that meet a rectangle, (N,)."""
    return (boxes[:, :2] < zone[2:]).all(axis=1) & (boxes[:, 2:] > zone[:2]).all(axis=1)


def _candidates(one: Pieces, other: Pieces, zone: Tile) -> list[tuple[int, int]]:
    """Return the pairs of pieces of one class whose boxes meet in the zone."""
    here, there = np.flatnonzero(meets(one.boxes, zone)), np.flatnonzero(meets(other.boxes, zone))
    a, b = one.boxes[here][:, None], other.boxes[there][None]
    near = (a[..., :2] < b[..., 2:]).all(axis=2) & (a[..., 2:] > b[..., :2]).all(axis=2)
    same = one.classes[here][:, None] == other.classes[there][None]
    rows, columns = np.nonzero(near & same)
    return list(zip(here[rows].tolist(), there[columns].tolist()))


def _overlap(
    one: Shown,
    other: Shown,
    first: int,
    second: int,
    zone: Tile,
    masks: tuple[dict[int, np.ndarray], ...],
) -> _Overlap:
    """Compare two pieces in the zone; their masks there are kept in ``masks``."""
    if one.pieces.crops is None or other.pieces.crops is None:
        a, b = (
            _clipped(shown.pieces.boxes[index], zone)
            for shown, index in ((one, first), (other, second))
        )
        return _Overlap(_area(_clipped(a, b)), _area(a), _area(b))
    for shown, index, kept in ((one, first, masks[0]), (other, second, masks[1])):
        if index not in kept:
            assert shown.pieces.crops is not None
            kept[index] = shown.pieces.crops[index].inside(zone)
    a, b = masks[0][first], masks[1][second]
    return _Overlap(*(int(np.count_nonzero(mask)) for mask in (a & b, a, b)))


def _clipped(box: np.ndarray, zone: np.ndarray | Tile) -> np.ndarray:
    return np.concatenate([np.maximum(box[:2], zone[:2]), np.minimum(box[2:], zone[2:])])


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


def _parts_agree(one: np.ndarray, other: np.ndarray) -> bool:
    """Return True if a connected part of a mask agrees with one of another, as a bend may have."""
    count, parts = cv2.connectedComponents(one.view(np.uint8), connectivity=8)
    others, other_parts = cv2.connectedComponents(other.view(np.uint8), connectivity=8)
    if count * others <= 4:  # one part each: they were compared before
        return False
    both = np.bincount((parts * others + other_parts).ravel(), minlength=count * others)
    both = both.reshape(count, others)
    one_areas, other_areas = both.sum(axis=1)[1:, None], both.sum(axis=0)[None, 1:]
    inner = both[1:, 1:]
    iou = inner / (one_areas + other_areas - inner)
    least = LEAST_PART * min(one_areas.sum(), other_areas.sum())
    return bool(((iou >= AGREE) & (inner >= least)).any())
