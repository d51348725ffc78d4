"""The result of a check, kept in a folder for the next start.

An entry holds arrays and a JSON file, never code. It is used only if the annotation file has the
same digest, every image file the same size and modification time, and the entry itself is whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from swinv2_backbone.checkpoints.durable import unfinished
from swinv2_backbone.checkpoints.records import read_record
from swinv2_backbone.d2.data.storage.records import load_arrays, save_arrays, texts_of

VERSION = 1  # of the checks and of this format: entries of other versions are made anew
ENTRY = "entry.json"
BLOCK = 1 << 22
GONE = (-1, -1)  # the stamp of a file that does not exist

logger = logging.getLogger(__name__)


class Entry(NamedTuple):
    """The content of an entry: arrays, and JSON values."""

    arrays: dict[str, np.ndarray]
    values: dict[str, Any]


class Cache:
    """One entry of a cache folder.

    Args:
        folder: the cache folder, created when the first entry is saved.
        source: file that was checked.
        options: everything else that the result depends on, as JSON values.
    """

    def __init__(self, folder: str | Path, source: str | Path, options: Mapping[str, Any]):
        self.source = Path(source)
        place = json.dumps([VERSION, str(self.source.resolve()), options], sort_keys=True)
        name = f"{self.source.stem}-{hashlib.sha256(place.encode()).hexdigest()[:16]}"
        self.entry = Path(folder, name)

    def load(self, images: str | Path) -> Entry | None:
        """Return the entry; None if there is none, it is damaged, or files have changed.

        Args:
            images: folder of the image files, whose names are an array of the entry.
        """
        if not self.entry.exists():
            return None
        try:
            values = read_record(self.entry / ENTRY, "the dataset is checked anew")
            if values["source"] != digest(self.source):
                return None
            if values["arrays"] != _digests(self.entry):
                logger.warning(f"{self.entry} is damaged and will be made anew")
                return None
            arrays = load_arrays(self.entry)
            names = texts_of(arrays, "name")
            if not np.array_equal(stamps(images, names), arrays["stamps"]):
                return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            logger.warning(f"the result of the last check cannot be used: {error}")
            return None
        return Entry(arrays, values["values"])

    def save(self, entry: Entry) -> bool:
        """Save an entry; return False, and say so, if that is not possible.

        ``entry.arrays`` has the ``stamps`` of the image files from before they were checked.
        """
        try:
            self.entry.parent.mkdir(parents=True, exist_ok=True)
            with unfinished(self.entry) as folder:
                folder.mkdir()
                save_arrays(entry.arrays, folder)
                content = {"source": digest(self.source), "arrays": _digests(folder)}
                text = json.dumps(content | {"values": entry.values})
                (folder / ENTRY).write_text(text, encoding="utf-8")
        except OSError as error:
            if (self.entry / ENTRY).is_file():  # another process was faster
                return True
            logger.warning(f"the result of the check cannot be kept in {self.entry}: {error}")
            return False
        return True


def digest(path: Path) -> str:
    """Return the SHA-256 digest of a file."""
    found = hashlib.sha256()  # hardware-accelerated on most processors
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def stamps(folder: str | Path, names: list[str]) -> np.ndarray:
    """Return (len(names), 2) sizes and modification times in nanoseconds of files; -1 if absent."""
    found = np.full((len(names), 2), GONE, np.int64)
    for row, name in enumerate(names):
        try:
            status = os.stat(os.path.join(folder, name))
        except OSError:
            continue
        found[row] = status.st_size, status.st_mtime_ns
    return found


def _digests(entry: Path) -> dict[str, str]:
    return {path.name: digest(path) for path in sorted(entry.glob("*.npy"))}
