"""A reduced drawing of a large picture and its predictions.

Legend: H, W are the height and width of the picture; h, w those of the preview.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from swinv2_backbone.d2.inference.prediction import Prediction, RunLengths
from swinv2_backbone.d2.inference.predictor import Predictor
from swinv2_backbone.d2.inference.tiling.geometry import Tile

SIDE = 2048  # pixels of the longer side; smaller pictures are drawn in their size


class Preview:
    """Collects the pixels of tiles, reduced; its method ``add`` is a ``seen`` of predict_tiled."""

    def __init__(self) -> None:
        self._pixels: np.ndarray | None = None
        self._size = (0, 0)

    def add(self, tile: Tile, pixels: np.ndarray, size: tuple[int, int]) -> None:
        """Add a tile of a picture of a size (H, W)."""
        if self._pixels is None:
            self._size = size
            self._pixels = np.zeros((*_reduced(size), pixels.shape[2]), pixels.dtype)
        (y0, y1), (x0, x1) = (
            (round(start * part / whole), max(round(end * part / whole), 1))
            for start, end, part, whole in zip(
                (tile.top, tile.left), (tile.bottom, tile.right), self._pixels.shape, size
            )
        )
        if y0 < y1 and x0 < x1:
            shape = (x1 - x0, y1 - y0)
            reduced = cv2.resize(np.ascontiguousarray(pixels), shape, interpolation=cv2.INTER_AREA)
            self._pixels[y0:y1, x0:x1] = reduced.reshape(*shape[::-1], -1)

    @property
    def pixels(self) -> np.ndarray:
        """The reduced picture, (h, w, n)."""
        assert self._pixels is not None
        return self._pixels

    def draw(self, predictor: Predictor, found: Prediction) -> np.ndarray:
        """Draw the prediction of the picture on its preview, (h, w, 3) uint8 in BGR order."""
        return predictor.draw(self.pixels, _reduce(found, self._size, self.pixels.shape[:2]))


class _ReducedMasks:
    """Masks of a large picture, sampled at the pixels of a preview when they are used."""

    def __init__(self, rles: RunLengths, boxes: np.ndarray, rows: np.ndarray, columns: np.ndarray):
        self._rles, self._boxes, self._rows, self._columns = rles, boxes, rows, columns

    def __len__(self) -> int:
        return len(self._rles)

    def __getitem__(self, index: int) -> torch.Tensor:
        rle, (x0, y0, x1, y1) = self._rles[index], self._boxes[index]
        mask = torch.zeros(len(self._rows), len(self._columns), dtype=torch.bool)
        here = slice(*np.searchsorted(self._rows, (y0 - 1, y1 + 1)).tolist())
        across = slice(*np.searchsorted(self._columns, (x0 - 1, x1 + 1)).tolist())
        found = sampled(rle["counts"], rle["size"][0], self._rows[here], self._columns[across])
        mask[here, across] = torch.from_numpy(found)
        return mask


def sampled(counts: bytes, height: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return whether pixels are in a mask, (len(rows), len(columns)), without decoding it.

    Args:
        counts: compressed counts of COCO's RLE, in which runs of 0 and of 1 alternate.
        height: rows of the mask, whose pixels are counted column by column.
    """
    borders = np.cumsum(run_counts(counts))
    pixels = columns[None].astype(np.int64) * height + rows[:, None]
    return np.searchsorted(borders, pixels, side="right") % 2 == 1


def run_counts(counts: bytes) -> np.ndarray:
    """Decode the compressed counts of COCO's RLE: 5 bits per character, differences from the third.

    The sixth bit of a character says that the number goes on, and the fifth bit of its last
    character is its sign.
    """
    values = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    ends = (values & 0x20) == 0
    starts = np.flatnonzero(np.concatenate([[True], ends[:-1]]))
    digit = np.arange(len(values)) - np.repeat(starts, np.diff([*starts, len(values)]))
    numbers = np.add.reduceat((values & 0x1F) << (5 * digit), starts)
    negative = (values[ends] & 0x10) != 0
    numbers -= np.where(negative, np.int64(1) << (5 * (digit[ends] + 1)), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _reduced(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _reduce(found: Prediction, size: tuple[int, int], reduced: tuple[int, ...]) -> Prediction:
    """Return a prediction in pixels of the preview."""
    rows, columns = (
        ((np.arange(part) + 0.5) * whole / part).astype(np.int64)
        for whole, part in zip(size, reduced)
    )
    labels = None if found.labels is None else np.asarray(found.labels[np.ix_(rows, columns)])
    if found.instances is None:
        return Prediction(labels=labels)
    boxes = found.instances.pred_boxes.tensor
    factor = torch.tensor([reduced[1] / size[1], reduced[0] / size[0]] * 2)
    instances = Instances((reduced[0], reduced[1]))
    instances.pred_boxes = Boxes(boxes * factor)
    instances.scores, instances.pred_classes = found.instances.scores, found.instances.pred_classes
    if found.instances.has("pred_rles"):
        masks = _ReducedMasks(found.instances.pred_rles, boxes.numpy(), rows, columns)
        instances.pred_masks = masks
    return Prediction(instances, labels)
