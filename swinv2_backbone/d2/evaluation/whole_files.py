"""Detectron2's own files, written whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from detectron2.utils.file_io import PathManager

from swinv2_backbone.checkpoints.durable import durable


@contextlib.contextmanager
def whole_files() -> Iterator[None]:
    """Write the local files that Detectron2 opens with its PathManager in this block durably.

    A process that is killed meanwhile leaves the earlier files.
    """
    plain = PathManager.open

    def opened(path: str, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode not in ("w", "wb") or "://" in path:
            return plain(path, mode, *args, **kwargs)
        return durable(Path(path)) if mode == "wb" else _durable_text(Path(path))

    PathManager.open = opened
    try:
        yield
    finally:
        del PathManager.open  # the attribute of the instance, which hid the method


class _TextFile:
    """A text file as Detectron2 uses it, without a second copy of a large text."""

    def __init__(self, file: IO[bytes]):
        self.file = file

    def write(self, text: str) -> int:
        self.file.write(text.encode())
        return len(text)

    def flush(self) -> None:
        self.file.flush()


@contextlib.contextmanager
def _durable_text(path: Path) -> Iterator[_TextFile]:
    with durable(path) as file:
        yield _TextFile(file)
