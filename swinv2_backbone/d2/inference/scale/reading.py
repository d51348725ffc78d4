"""The images of shards, read beside the model that predicts them, a chunk at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from swinv2_backbone.d2.inference.scale.run_record import Run
from swinv2_backbone.d2.inference.scale.sources import Source

AHEAD = 2  # chunks that are read before they are needed


class Chunk(NamedTuple):
    """Images of one shard that are predicted together; ``first`` is the number of the first."""

    shard: int
    first: int
    sources: list[Source]
    last: bool  # of its shard


def chunks_of(run: Run, shards: Iterable[int], size: int) -> Iterator[Chunk]:
    """Yield the images of shards in chunks, the same ones whichever process asks."""
    for shard in shards:
        sources = run.sources(shard)
        for start in range(0, len(sources), size):
            first, last = shard * run.shard_size + start, start + size >= len(sources)
            yield Chunk(shard, first, sources[start : start + size], last)


def read_ahead(
    read: Callable[[Source], Any], chunks: Iterable[Chunk], threads: int
) -> Iterator[tuple[Chunk, list[Any]]]:
    """Yield each chunk with what ``read`` returns for its images."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque = deque()
        for chunk in chunks:
            waiting.append((chunk, [pool.submit(read, source) for source in chunk.sources]))
            if len(waiting) > AHEAD:
                yield _read(*waiting.popleft())
        while waiting:
            yield _read(*waiting.popleft())


def _read(chunk: Chunk, images: list) -> tuple[Chunk, list[Any]]:
    return chunk, [image.result() for image in images]
