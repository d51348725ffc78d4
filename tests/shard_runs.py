"""Runs over many images with a model of a few lines, and their results as a whole."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from swinv2_backbone.d2.data.loading.images import read_image
from swinv2_backbone.d2.inference.prediction import Classes, Prediction, to_records
from swinv2_backbone.d2.inference.scale.run_record import Run, list_images, record
from swinv2_backbone.d2.inference.scale.shards import read_shard
from swinv2_backbone.d2.inference.scale.sources import Source
from swinv2_backbone.d2.inference.scale.worker import Worker, shards_for

SETTINGS = {"--confidence": 0.5}


class Brightness:
    """A model that finds one object, whose box has the image's mean pixel as its side.

    Args:
        seconds: time that it takes for an image.
    """

    classes = Classes(things=["light"])
    chunk_size = 3

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds
        self.batches: list[int] = []

    @property
    def predictor(self) -> Brightness:
        return self

    def read(self, source: Source, folder: str) -> np.ndarray:
        return read_image(source.name, "BGR", opener=source.opener(folder))

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        self.batches.append(len(images))
        time.sleep(self.seconds * len(images))
        return [self._found(image) for image in images]

    def _found(self, image: np.ndarray) -> Prediction:
        found = Instances(image.shape[:2])
        found.pred_boxes = Boxes(torch.tensor([[0.0, 0.0, image.mean(), 1.0]]))
        found.scores, found.pred_classes = torch.tensor([0.75]), torch.tensor([0])
        return Prediction(found)

    def records(self, found: Prediction) -> dict:
        return to_records(found, self.classes)


def begin(folder: Path, sources: Iterable[Source], size: int = 7, suffix: str = "jsonl") -> Run:
    return record(list_images(folder, sources, size, suffix, SETTINGS))


def predict(run: Run, rank: int = 0, world: int = 1, seconds: float = 0.0) -> Worker:
    """Run one process of a run to its end."""
    worker = Worker(run, Brightness(seconds))
    worker.work(shards_for(run, rank, world))
    return worker


def results(run: Run) -> list[dict]:
    """All records of a complete run, in order; nothing else may lie in its folder."""
    assert run.missing() == []
    others = {"run.json", "model.json", run.images}
    assert {path.name for path in run.folder.iterdir()} - others == set(run.names)
    return [one for shard in range(run.shards) for one in read_shard(run.file(shard))]


def require_exactly_once(found: list[dict], names: Sequence[str]) -> None:
    """Fail unless the records are those of the images, each once, without failures."""
    assert [one["file_name"] for one in found] == list(names)
    assert [one["image_id"] for one in found] == list(range(len(names)))
    assert not any("error" in one for one in found)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
