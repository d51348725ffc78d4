"""A detector without faults, for tests of tiles: it returns the objects that a tile shows, exactly.

Pictures hold the number of an object at each of its pixels, 0 elsewhere; an object is connected.
"""

from __future__ import annotations

import cv2
import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.inference.prediction import Classes
from swinv2_backbone.d2.inference.predictor import Predictor
from swinv2_backbone.d2.inference.tiling.geometry import Tile, Tiling
from swinv2_backbone.d2.inference.tiling.merging import Merger, Objects
from swinv2_backbone.d2.inference.tiling.pieces import Pieces, crop_of


def pieces_of(numbers: np.ndarray, left: int = 0, top: int = 0, masks: bool = True) -> Pieces:
    """Return the connected parts of the objects in a part of a picture, all of one class."""
    boxes, crops = [], []
    for number in np.unique(numbers[numbers > 0]):
        count, parts = cv2.connectedComponents((numbers == number).astype(np.uint8), connectivity=8)
        for part in range(1, count):
            crop = crop_of(parts == part, left, top)
            crops.append(crop)
            boxes.append(crop.place)
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    scores, classes = np.full(len(boxes), 0.9), np.zeros(len(boxes), int)
    return Pieces(boxes, scores, classes, crops if masks else None)


def merged(numbers: np.ndarray, tile: int, overlap: int, masks: bool = True) -> Objects:
    """Return what the tiles of a picture give together."""
    height, width = numbers.shape
    tiling = Tiling(tile, overlap)
    tiles = tiling.tiles(height, width)
    merger = Merger(tiles, height, width, overlap, masks)
    for each in tiles:
        part = numbers[each.top : each.bottom, each.left : each.right]
        merger.add(each, pieces_of(part, each.left, each.top, masks))
    return merger.finish()


def masks_of(found: Objects, shape: tuple[int, int]) -> list[bytes]:
    """Return the masks in a fixed order, as bytes."""
    assert found.masks is not None
    rles = [{"size": list(shape), "counts": counts} for counts in found.masks]
    return sorted(coco_mask.decode(rle).tobytes("F") for rle in rles)


def true_masks(numbers: np.ndarray) -> list[bytes]:
    masks = [numbers == number for number in np.unique(numbers[numbers > 0])]
    return sorted(np.asfortranarray(mask, np.uint8).tobytes("F") for mask in masks)


def true_boxes(numbers: np.ndarray) -> list[tuple[int, ...]]:
    return sorted(
        Tile(int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
        for y, x in (np.nonzero(numbers == one) for one in np.unique(numbers[numbers > 0]))
    )


class PerfectModel(torch.nn.Module):
    """Detectron2's interface to the perfect detector, for pictures from :func:`painted`.

    Args:
        masks: return the objects with masks.
        labels: also return the numbers as classes of pixels.
    """

    def __init__(self, masks: bool = True, labels: bool = False):
        super().__init__()
        self.masks, self.labels = masks, labels
        self.seen: list[tuple[int, int]] = []

    def forward(self, inputs: list[dict]) -> list[dict]:
        return [self._output(one["image"], (one["height"], one["width"])) for one in inputs]

    def _output(self, image: torch.Tensor, size: tuple[int, int]) -> dict:
        self.seen.append(tuple(image.shape[1:]))
        numbers = cv2.resize(image[0].numpy(), size[::-1], interpolation=cv2.INTER_NEAREST)
        numbers = numbers.astype(np.int32)
        pieces = pieces_of(numbers)
        assert pieces.crops is not None
        found = Instances(size)
        found.pred_boxes = Boxes(torch.from_numpy(pieces.boxes).float())
        found.scores = torch.from_numpy(pieces.scores)
        found.pred_classes = torch.from_numpy(pieces.classes)
        if self.masks:
            whole = Tile(0, 0, size[1], size[0])
            masks = [crop.inside(whole) for crop in pieces.crops]
            found.pred_masks = torch.from_numpy(np.array(masks, bool).reshape(-1, *size))
        output = {"instances": found}
        if self.labels:
            output["sem_seg"] = torch.nn.functional.one_hot(
                torch.from_numpy(numbers).long(), 20
            ).permute(2, 0, 1)
        return output


def painted(numbers: np.ndarray) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 of object numbers below 256."""
    return np.repeat(numbers[:, :, None].astype(np.uint8), 3, axis=2)


def perfect_predictor(**options: bool) -> Predictor:
    classes = Classes(["thing"], [f"stuff {number}" for number in range(20)])
    return Predictor(PerfectModel(**options), classes, T.ResizeShortestEdge(64, 100), "RGB")
