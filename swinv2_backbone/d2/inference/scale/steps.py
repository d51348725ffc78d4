"""The two steps of a worker: reading an image in a thread, and predicting the images of a chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from swinv2_backbone.d2.inference.pipeline import CPU_BATCH, GPU_BATCH
from swinv2_backbone.d2.inference.prediction import Prediction
from swinv2_backbone.d2.inference.predictor import Predictor, Prepared
from swinv2_backbone.d2.inference.scale.sources import Source
from swinv2_backbone.d2.inference.tiling import Tiling, predict_tiled

CHUNK = 8  # images at least that are read together
BATCHES = 4  # in a chunk, whose images are sorted by size


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
    """Images that the model predicts as a whole, those of one size together.

    Args:
        batch_size: images that enter the model together; default: 1 on a CPU, 8 on a GPU.
    """

    predictor: Predictor
    batch_size: int | None = None

    def __post_init__(self) -> None:
        on_gpu = self.predictor.device.type == "cuda"
        self.size = self.batch_size or (GPU_BATCH if on_gpu else CPU_BATCH)
        self.chunk_size = max(CHUNK, BATCHES * self.size)

    def read(self, source: Source, folder: str) -> Prepared:
        image = self.predictor.read(source.name, opener=source.opener(folder))
        return self.predictor.prepare(image)

    def predict(self, images: Sequence[Prepared]) -> list[Prediction]:
        order = sorted(range(len(images)), key=lambda index: images[index].tensor.shape)
        found: dict[int, Prediction] = {}
        for start in range(0, len(order), self.size):
            batch = order[start : start + self.size]
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
