"""The result of a model for a large picture, which is never whole in memory.

Legend: H, W are the height and width of the picture; N is the number of objects.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.inference.pictures import checked_path, path_of, picture_of
from swinv2_backbone.d2.inference.prediction import Prediction
from swinv2_backbone.d2.inference.predictor import Predictor
from swinv2_backbone.d2.inference.result import Detection, Result
from swinv2_backbone.d2.inference.tiling.geometry import Tile, Tiling
from swinv2_backbone.d2.inference.tiling.predict import predict_tiled
from swinv2_backbone.d2.inference.tiling.preview import Preview


class TiledResult(Result):
    """A :class:`Result` whose image and drawing are reduced to at most 2,048 pixels a side.

    Boxes, masks and class numbers are in pixels of the picture. ``masks`` decodes all masks at
    once, (N, H, W); iteration decodes one at a time, and :meth:`to_coco` none.
    """

    def __init__(
        self,
        predictor: Predictor,
        preview: Preview,
        found: Prediction,
        size: tuple[int, int],
        path: str | None = None,
    ):
        super().__init__(predictor, preview.pixels, found, path)
        self._preview, self._full_size = preview, size

    @property
    def size(self) -> tuple[int, int]:
        return self._full_size

    def plot(self) -> np.ndarray:
        """Draw the prediction on the reduced picture, (h, w, 3) uint8 in RGB order."""
        drawn = self._preview.draw(self._predictor, self._found)
        return np.ascontiguousarray(drawn[:, :, ::-1])

    def __iter__(self) -> Iterator[Detection]:
        objects = self._found.instances
        for index, number in enumerate(self.classes.tolist()):
            mask = None
            if objects is not None and objects.has("pred_rles"):
                mask = coco_mask.decode(objects.pred_rles[index]).view(bool)
            score = float(self.scores[index])
            yield Detection(self.boxes[index], score, number, self.names[number], mask)


def predict_large(
    predictor: Predictor, image: Any, tiling: Tiling, order: str = "RGB", urls: bool = False
) -> TiledResult:
    """Predict an image of any kind that :class:`Model` takes, by tiles; files by windows."""
    preview, sizes = Preview(), [(0, 0)]

    def seen(tile: Tile, pixels: np.ndarray, size: tuple[int, int]) -> None:
        preview.add(tile, pixels, size)
        sizes[:] = [size]

    if isinstance(image, (str, os.PathLike)):
        source: Any = checked_path(image, urls)
    else:
        source = picture_of(image, predictor, order)
    found = predict_tiled(predictor, source, tiling, seen=seen)
    return TiledResult(predictor, preview, found, sizes[0], path_of(image))
