"""Objects as a tile shows them: pieces, whose masks are crops or run lengths of the whole picture.

Legend: H, W are the height and width of the picture; h, w of a crop; N is the number of objects.
Boxes are (x0, y0, x1, y1) in pixels of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.inference.tiling.geometry import Tile

MOST_PIXELS = 1 << 32  # of a picture whose run lengths fit into 32 bits


class Crop(NamedTuple):
    """The mask of an object inside the smallest rectangle that holds it, as packed bits."""

    place: Tile
    bits: np.ndarray

    def area(self) -> int:
        """Return the number of pixels of the object."""
        return int(np.count_nonzero(np.unpackbits(self.bits)))

    def inside(self, zone: Tile) -> np.ndarray:
        """Return the mask in a rectangle of the picture, (h, w) bool."""
        found = np.zeros((zone.height, zone.width), bool)
        left, top, right, bottom = self.place
        pixels = np.unpackbits(self.bits, count=self.place.height * self.place.width)
        mask = pixels.reshape(self.place.height, self.place.width).view(bool)
        x0, y0 = max(left, zone.left), max(top, zone.top)
        x1, y1 = min(right, zone.right), min(bottom, zone.bottom)
        if x0 < x1 and y0 < y1:
            part = mask[y0 - top : y1 - top, x0 - left : x1 - left]
            found[y0 - zone.top : y1 - zone.top, x0 - zone.left : x1 - zone.left] = part
        return found


@dataclass
class Pieces:
    """The objects that one tile shows.

    Attributes:
        boxes: (N, 4) float64.
        scores: (N,).
        classes: (N,) integers.
        crops: their masks; None for a model without masks.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    crops: list[Crop] | None

    def __len__(self) -> int:
        return len(self.boxes)

    def chosen(self, keep: np.ndarray) -> Pieces:
        """Return those with True in ``keep``."""
        crops = None
        if self.crops is not None:
            crops = [crop for crop, kept in zip(self.crops, keep) if kept]
        return Pieces(self.boxes[keep], self.scores[keep], self.classes[keep], crops)


def margins(boxes: np.ndarray, tile: Tile, height: int, width: int) -> np.ndarray:
    """Return how far boxes are from the sides of a tile that other tiles lie beyond, (N,).

    The sides of the picture do not count; negative: a box reaches out of the tile.
    """
    inner = [tile.left > 0, tile.top > 0, tile.right < width, tile.bottom < height]
    distances = np.concatenate([boxes[:, :2] - tile[:2], tile[2:] - boxes[:, 2:]], axis=1)
    return np.where(inner, distances, np.inf).min(axis=1)


def crop_of(mask: np.ndarray, left: int, top: int) -> Crop:
    """Crop a mask (h, w) bool whose corner is at (left, top) of the picture."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    width, height = max(width, 1), max(height, 1)  # an empty mask keeps one pixel, which is 0
    place = Tile(left + x, top + y, left + x + width, top + y + height)
    return Crop(place, np.packbits(mask[y : y + height, x : x + width]))


def run_lengths(crop: Crop, height: int, width: int) -> bytes:
    """Return the mask of a crop as compressed counts of COCO's RLE for the whole (H, W) picture.

    COCO counts pixels column by column. The picture is never filled: runs are moved by arithmetic.
    """
    mask = crop.inside(crop.place)
    columns = np.zeros((mask.shape[1], mask.shape[0] + 2), np.int8)
    columns[:, 1:-1] = mask.T
    changes = np.diff(columns, axis=1)  # 1 where a run starts, -1 where it ends
    column, starts = np.nonzero(changes == 1)
    _, ends = np.nonzero(changes == -1)
    base = (crop.place.left + column.astype(np.int64)) * height + crop.place.top
    borders = np.stack([base + starts, base + ends], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], borders, [height * width]]))
    if not counts[-1]:
        counts = counts[:-1]
    joined = _without_gaps(counts.tolist()) if mask.shape[0] == height else counts.tolist()
    rle = coco_mask.frPyObjects({"counts": joined, "size": [height, width]}, height, width)
    return rle["counts"]


def _without_gaps(counts: list[int]) -> list[int]:
    """Join runs that are separated by nothing, where a run goes on in the next column."""
    found = counts[:2]
    for gap, run in zip(counts[2::2], [*counts[3::2], 0]):
        if gap:
            found += [gap, run]
        else:
            found[-1] += run
    return found if len(counts) % 2 == 0 or found[-1] else found[:-1]
