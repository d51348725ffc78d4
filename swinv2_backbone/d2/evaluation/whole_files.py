"""Detectron2's own files, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager

from swinv2_backbone.checkpoints.durable import durable


@contextlib.contextmanager
def whole_files() -> Iterator[None]:
    """Write the local files that Detectron2 opens with its PathManager in this block durably.

    A process that is killed meanwhile leaves the earlier files.
    """
    plain, own = PathManager.open, vars(PathManager).get("open")

    def opened(path: str | os.PathLike, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode not in ("w", "wb") or "://" in str(path):
            return plain(path, mode, *args, **kwargs)
        return _WholeFile(Path(path), mode)

    PathManager.open = opened
    try:
        yield
    finally:
        if own is None:
            del PathManager.open  # the attribute of the instance, which hid the method
        else:
            PathManager.open = own


class _WholeFile:
    """A text or binary file that becomes ``path`` when it is closed; without a copy in memory."""

    def __init__(self, path: Path, mode: str):
        self._block, self._text = contextlib.ExitStack(), mode == "w"
        self._file = self._block.enter_context(durable(path))

    def write(self, data: Any) -> int:
        self._file.write(data.encode() if self._text else data)
        return len(data)

    def writelines(self, lines: Iterable[Any]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._block.close()

    def __enter__(self) -> _WholeFile:
        return self

    def __exit__(self, *error: Any) -> bool:
        return bool(self._block.__exit__(*error))

    def __del__(self) -> None:
        self.close()
