"""The two steps of a worker: reading an image in a thread, and predicting the images of a chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from swinv2_backbone.d2.inference.prediction import Prediction
from swinv2_backbone.d2.inference.predictor import Predictor, Prepared
from swinv2_backbone.d2.inference.scale.sources import Source
from swinv2_backbone.d2.inference.tiling import Tiling, predict_tiled

CHUNKS = {"cpu": 8, "cuda": 32}  # images that are read and converted together
BATCHES = {"cpu": 1, "cuda": 8}  # images that the model predicts together


class Steps(Protocol):
    """Reading and predicting images with one model.

    Attributes:
        chunk_size: number of images that are read and predicted between two looks at the shard.
    """

    predictor: Predictor
    chunk_size: int

    def read(self, source: Source, folder: str) -> Any:
        """Read an image; a relative path starts at ``folder``."""

    def predict(self, images: Sequence[Any]) -> list[Prediction]:
        """Predict what :meth:`read` returned."""


@dataclass
class Whole:
    """Images that the model predicts as a whole, those of one size together."""

    predictor: Predictor

    def __post_init__(self) -> None:
        device = self.predictor.device.type
        self.chunk_size, self.batch_size = CHUNKS.get(device, 8), BATCHES.get(device, 1)

    def read(self, source: Source, folder: str) -> Prepared:
        image = self.predictor.read(source.name, opener=source.opener(folder))
        return self.predictor.prepare(image)

    def predict(self, images: Sequence[Prepared]) -> list[Prediction]:
        order = sorted(range(len(images)), key=lambda index: images[index].tensor.shape)
        found: dict[int, Prediction] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            found.update(zip(batch, self.predictor.apply([images[index] for index in batch])))
        return [found[index] for index in range(len(images))]


@dataclass
class Tiled:
    """Large images that are predicted by tiles, which :func:`predict_tiled` reads."""

    predictor: Predictor
    tiling: Tiling
    chunk_size: int = 1

    def read(self, source: Source, folder: str) -> tuple[Source, str]:
        return source, folder

    def predict(self, images: Sequence[tuple[Source, str]]) -> list[Prediction]:
        return [
            predict_tiled(self.predictor, source.name, self.tiling, opener=source.opener(folder))
            for source, folder in images
        ]
