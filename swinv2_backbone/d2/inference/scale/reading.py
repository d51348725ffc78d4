"""The images of shards, read beside the model that predicts them, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice, tee
from typing import Any, NamedTuple

from swinv2_backbone.d2.inference.pipeline import run_ahead
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
    read: Callable[[Source], Any], chunks: Iterable[Chunk], threads: int, size: int
) -> Iterator[tuple[Chunk, list[Any]]]:
    """Yield each chunk of at most ``size`` images with what ``read`` returns for its images."""
    chunks, same = tee(chunks)
    sources = (source for chunk in same for source in chunk.sources)
    with closing(run_ahead(read, sources, threads, AHEAD * size)) as images:
        for chunk in chunks:
            yield chunk, list(islice(images, len(chunk.sources)))
