"""The record of a large run: its images in a fixed order, cut into shards, and its settings.

``run.json`` and the list of images are written once, by the first process. Every other process, and
every later one that continues the run, reads them: so all agree on what each shard holds, even if a
folder of images has grown.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from swinv2_backbone.checkpoints.durable import durable, remove_partials
from swinv2_backbone.checkpoints.records import parse_record
from swinv2_backbone.d2.inference.scale.first import first_text
from swinv2_backbone.d2.inference.scale.sources import Source

RECORD = "run.json"
LOST = "copy the folder again, or predict into another one"
WAIT = 3600  # seconds for the first process to list the images
SHOWN, LONGEST = 10, 200  # differing settings, and characters of a value


@dataclass(frozen=True)
class Run:
    """A run that writes its results to ``folder``; see :func:`list_images`.

    Attributes:
        images: name of the file with one image per line.
        starts: offset in that file of the first image of each shard, in bytes.
        base: folder at which relative paths of images start.
        suffix: kind of the files of results, "jsonl" or "parquet".
        settings: what the results depend on, by name.
    """

    folder: Path
    images: str
    count: int
    shard_size: int
    starts: list[int]
    base: str
    suffix: str
    settings: dict[str, Any]

    @property
    def shards(self) -> int:
        return len(self.starts)

    @cached_property
    def names(self) -> list[str]:
        """Names of the files of results, by the number of the shard."""
        digits = max(5, len(str(self.shards)))
        total = f"{self.shards:0{digits}d}"
        return [
            f"predictions-{shard:0{digits}d}-of-{total}.{self.suffix}"
            for shard in range(self.shards)
        ]

    def file(self, shard: int) -> Path:
        return self.folder / self.names[shard]

    def missing(self) -> list[int]:
        """Return the shards whose results are not written."""
        there = set(os.listdir(self.folder))
        return [shard for shard, name in enumerate(self.names) if name not in there]

    def size(self, shard: int) -> int:
        """Return the number of images of a shard; only the last one has fewer than the others."""
        return min(self.shard_size, self.count - shard * self.shard_size)

    def sources(self, shard: int) -> list[Source]:
        """Read which images a shard holds."""
        with open(self.folder / self.images, "rb") as file:
            file.seek(self.starts[shard])
            lines = [file.readline() for _ in range(self.size(shard))]
        path = self.folder / self.images
        return [Source(*parse_record(line, path, LOST)) for line in lines]


def list_images(
    folder: Path, sources: Iterable[Source], shard_size: int, suffix: str, settings: Mapping
) -> Run:
    """Write the list of images, and return the run, which :func:`record` makes known.

    Raises:
        ValueError: there are no images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = folder / f"images-{secrets.token_hex(4)}.jsonl"
    starts, count, offset = [], 0, 0
    with durable(images) as file:
        for source in sources:
            if count % shard_size == 0:
                starts.append(offset)
            line = (json.dumps(source if source.archive else source[:1]) + "\n").encode()
            file.write(line)
            count, offset = count + 1, offset + len(line)
    base = os.getcwd()
    return Run(folder, images.name, count, shard_size, starts, base, suffix, dict(settings))


def record(run: Run) -> Run:
    """Write the record of a run, or read the one that another process wrote meanwhile.

    Raises:
        ValueError: that one has other settings.
    """
    text = first_text(run.folder / RECORD, json.dumps({**asdict(run), "folder": ""}))
    chosen = _parsed(run.folder, text)
    if chosen.images != run.images:
        (run.folder / run.images).unlink(missing_ok=True)
    require_same(chosen, run.settings)
    return chosen


def find_run(folder: Path) -> Run | None:
    """Read the record of a run; None if there is none."""
    path = folder / RECORD
    return _parsed(folder, path.read_text(encoding="utf-8")) if path.exists() else None


def wait_for_run(folder: Path) -> Run:
    """Read the record of a run as soon as its first process has written it.

    Raises:
        TimeoutError: it was not written within an hour.
    """
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if run := find_run(folder):
            return run
        time.sleep(0.2)
    raise TimeoutError(
        f"{folder / RECORD} was not written within {WAIT} s: has the process of RANK 0 started?"
    )


def tidy(run: Run) -> None:
    """Remove what killed processes of a complete run have left, beside the results.

    A process that at this moment writes a shard for a second time leaves it to the first file.
    """
    remove_partials(run.folder)
    for images in run.folder.glob("images-*.jsonl"):
        if images.name != run.images:
            images.unlink(missing_ok=True)


def require_same(run: Run, settings: Mapping[str, Any]) -> None:
    """Raise ValueError if a run was started with other settings, and name those."""
    now = json.loads(json.dumps(settings))
    names = [name for name in {**run.settings, **now} if run.settings.get(name) != now.get(name)]
    if names:
        lines = [
            f"  {name}: {_shown(run.settings.get(name))} then, {_shown(now.get(name))} now"
            for name in names[:SHOWN]
        ]
        raise ValueError(
            f"{run.folder} has results of a run with other settings; give the same to continue "
            "it, or another folder to start anew:\n" + "\n".join(lines)
        )


def _shown(value: Any) -> str:
    """Return a value as text; ``--input`` may be a million paths that a shell has listed."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text):,} characters)"


def _parsed(folder: Path, text: str) -> Run:
    return Run(**{**parse_record(text.encode(), folder / RECORD, LOST), "folder": folder})
