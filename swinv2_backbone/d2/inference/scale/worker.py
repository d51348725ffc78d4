"""One process of a large run: it predicts shards until the results of every shard are written.

No process knows of the others. Each begins with its own shards, rank, rank + world, ..., and then
takes those that are still missing, in random order: so the run ends also if a process is slow or
gone. Two processes may at the end predict the same shard; the second one notices, and a file that
appears whole under the name of its shard cannot be there twice.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import torch

from swinv2_backbone.d2.inference.prediction import Prediction
from swinv2_backbone.d2.inference.scale.reading import Chunk, chunks_of, read_ahead
from swinv2_backbone.d2.inference.scale.run_record import Run
from swinv2_backbone.d2.inference.scale.shards import record_of, write_shard
from swinv2_backbone.d2.inference.scale.sources import Source
from swinv2_backbone.d2.inference.scale.steps import Steps

# An image that cannot be read, or predicted in this memory.  Other errors of a device concern every
# image after it, and end the process.
FAILURES = (OSError, ValueError, MemoryError, torch.OutOfMemoryError, cv2.error)
THREADS = 2


class Failed(NamedTuple):
    """What takes the place of an image, and of its prediction, after an error."""

    message: str


def shards_for(run: Run, rank: int, world: int) -> Iterator[int]:
    """Yield the shards that a process shall predict, until none is missing."""
    chance, taken = random.Random(rank), set()
    missing = set(run.missing())
    for shard in range(rank, run.shards, world):
        if shard in missing and not run.file(shard).exists():
            taken.add(shard)
            yield shard
    while left := [shard for shard in run.missing() if shard not in taken]:
        taken.add(shard := chance.choice(left))
        yield shard


@dataclass
class Worker:
    """A model that predicts shards of a run; see :func:`shards_for`.

    Args:
        threads: number of threads that read images; default: 2.
        notice: called after each chunk.

    Attributes:
        failed: a message for each image of this process that failed.
    """

    run: Run
    steps: Steps
    threads: int | None = None
    notice: Callable[[], None] = lambda: None
    failed: list[str] = field(default_factory=list)
    _records: list[dict[str, Any]] = field(default_factory=list)

    def work(self, shards: Iterable[int]) -> None:
        """Predict shards and write their results.

        Raises:
            OSError: results cannot be written.
        """
        dropped, writing = -1, Future[None]()
        writing.set_result(None)
        size, threads = self.steps.chunk_size, self.threads or THREADS
        chunks = chunks_of(self.run, shards, size)
        with ThreadPoolExecutor(1) as writer:
            for chunk, images in read_ahead(self._read, chunks, threads, size):
                if chunk.shard == dropped or self.run.file(chunk.shard).exists():
                    dropped = chunk.shard
                    continue
                found = self._predict(images)
                writing.result()
                writing = writer.submit(self._finish, chunk, found)
                self.notice()
            writing.result()

    def _read(self, source: Source) -> Any | Failed:
        try:
            return self.steps.read(source, self.run.base)
        except FAILURES as error:
            return Failed(_message(error))

    def _predict(self, images: Sequence[Any | Failed]) -> list[Prediction | Failed]:
        """Predict images together, or one by one if that fails, so that one fails alone."""
        sound = [image for image in images if not isinstance(image, Failed)]
        found: list[Prediction | Failed]
        try:
            found = [*self.steps.predict(sound)]
        except FAILURES:
            found = [self._predict_one(image) for image in sound]
        results = iter(found)
        return [image if isinstance(image, Failed) else next(results) for image in images]

    def _predict_one(self, image: Any) -> Prediction | Failed:
        try:
            return self.steps.predict([image])[0]
        except FAILURES as error:
            return Failed(_message(error))

    def _finish(self, chunk: Chunk, found: list[Prediction | Failed]) -> None:
        """Convert the predictions of a chunk; after the last one of a shard, write its file."""
        if chunk.first == chunk.shard * self.run.shard_size:
            self._records = []
        for number, (source, one) in enumerate(zip(chunk.sources, found), chunk.first):
            record: dict[str, Any] = {"image_id": number, "file_name": source.name}
            if isinstance(one, Failed):
                record["error"] = one.message
                self.failed.append(f"{source.name}: {one.message}")
            else:
                record |= record_of(self.steps.predictor, one)
            self._records.append(record)
        if chunk.last:
            write_shard(self.run, chunk.shard, self._records)


def _message(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
