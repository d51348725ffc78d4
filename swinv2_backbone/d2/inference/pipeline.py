"""Predictions of a stream of images: reading and writing run beside the model, in threads.

OpenCV and Pillow release Python's lock while they decode, resize and encode, and so do PyTorch's
operators. All queues are bounded, so that memory does not grow with the number of images.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np

from swinv2_backbone.d2.inference.prediction import Prediction
from swinv2_backbone.d2.inference.predictor import Predictor, Prepared

# Images that cannot be read, drawn or written, or are too large for the memory.
FAILURES = (OSError, ValueError, RuntimeError, MemoryError, cv2.error)
CPU_BATCH, GPU_BATCH = 1, 8  # images that enter the model together, by default
LEAST_AHEAD = 4  # images that are read before they are needed
T = TypeVar("T")
R = TypeVar("R")


class _Item(NamedTuple):
    """An item of the stream: its picture, or the error of reading it."""

    number: int
    source: Any
    picture: np.ndarray | None
    prepared: Prepared | Exception


@dataclass(frozen=True)
class Pipeline:
    """Reads, predicts and finishes images, many at a time, and returns results in their order.

    Args:
        batch_size: images of one size that enter the model together; default: 1 on a CPU, 8 on a
            GPU.
        threads: threads that read, and as many that finish; default: 2 on a CPU, otherwise up to 8.
    """

    predictor: Predictor
    batch_size: int | None = None
    threads: int | None = None

    def run(
        self,
        sources: Iterable[T],
        read: Callable[[T], np.ndarray | None],
        finish: Callable[[T, np.ndarray, Prediction], R],
        readers: int | None = None,
    ) -> Generator[tuple[T, R | Exception], None, None]:
        """Yield each source with what ``finish`` returns, or with the error of its failure.

        Args:
            read: returns an image as the predictor takes it; None ends the stream.
            finish: uses the prediction of an image, in a thread.
            readers: number of threads that read; 1: the images are read one after the other.
        """
        on_gpu = self.predictor.device.type == "cuda"
        threads = self.threads or (min(8, os.cpu_count() or 1) if on_gpu else 2)
        size = self.batch_size or (GPU_BATCH if on_gpu else CPU_BATCH)
        limit = 2 * size + max(threads, LEAST_AHEAD)

        def prepared(numbered: tuple[int, T]) -> _Item:
            picture = _attempt(read, numbered[1])
            if picture is None or isinstance(picture, Exception):
                return _Item(*numbered, None, picture or StopIteration())
            return _Item(*numbered, picture, _attempt(self.predictor.prepare, picture))

        ahead = run_ahead(prepared, enumerate(sources), readers or threads, limit)
        items = takewhile(lambda item: not isinstance(item.prepared, StopIteration), ahead)
        waiting: dict[int, tuple[T, Future]] = {}
        following = 0
        with ThreadPoolExecutor(threads) as pool, contextlib.closing(ahead):
            for batch in _batches(items, size, limit):
                for item, found in zip(batch, self._predicted(batch)):
                    task = pool.submit(_finished, finish, item, found)
                    waiting[item.number] = item.source, task
                while following in waiting and (
                    waiting[following][1].done() or len(waiting) > limit
                ):
                    source, task = waiting.pop(following)
                    following += 1
                    yield source, task.result()
            for index in sorted(waiting):
                source, task = waiting.pop(index)
                yield source, task.result()

    def _predicted(self, batch: Sequence[_Item]) -> Sequence[Prediction | Exception]:
        """Predict a batch, or one by one if that fails, so that an image fails alone."""
        sound = [item.prepared for item in batch if not isinstance(item.prepared, Exception)]
        if len(sound) < len(batch):  # one that could not be read is a batch of its own
            return [item.prepared for item in batch if isinstance(item.prepared, Exception)]
        found = _attempt(self.predictor.apply, sound)
        if not isinstance(found, Exception):
            return found
        if len(sound) == 1:
            return [found]
        alone = (_attempt(self.predictor.apply, [one]) for one in sound)
        return [one if isinstance(one, Exception) else one[0] for one in alone]


def run_ahead(
    function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int
) -> Generator[R, None, None]:
    """Yield the results of a function in the order of the items, which threads compute ahead.

    Args:
        ahead: number of results that are begun before they are needed.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(items: Iterable[_Item], size: int, limit: int) -> Iterator[list[_Item]]:
    """Collect items of one prepared size; none waits for more than ``limit`` others."""
    pending: dict[tuple[int, ...], list[_Item]] = {}
    for item in items:
        if isinstance(item.prepared, Exception):
            yield [item]
            continue
        shape = tuple(item.prepared.tensor.shape)
        pending.setdefault(shape, []).append(item)
        if len(pending[shape]) == size:
            yield pending.pop(shape)
        oldest = min(pending, key=lambda key: pending[key][0].number, default=None)
        if oldest is not None and item.number - pending[oldest][0].number >= limit:
            yield pending.pop(oldest)
    yield from pending.values()


def _finished(
    finish: Callable[[Any, np.ndarray, Prediction], R], item: _Item, found: Prediction | Exception
) -> R | Exception:
    if isinstance(found, Exception):
        return found
    assert item.picture is not None
    return _attempt(finish, item.source, item.picture, found)


def _attempt(function: Callable[..., R], *args: Any) -> R | Exception:
    """Return the result of a function, or its exception if an image may cause it."""
    try:
        return function(*args)
    except FAILURES as error:
        return error
