"""Image files opened with Pillow; any damage is an OSError that names the file."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.utils.file_io import PathManager
from PIL import Image
from PIL.ImageFile import ImageFile

# Pillow's exceptions on damaged files, which depend on where the damage is.
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@contextmanager
def opened(path: str | os.PathLike) -> Iterator[ImageFile]:
    """Open an image without decoding it; an error inside the block names the file."""
    with (
        PathManager.open(os.fspath(path), "rb") as file,
        damage_named(path),
        Image.open(file) as image,
    ):
        yield image


@contextmanager
def damage_named(path: str | os.PathLike) -> Iterator[None]:
    """Turn any exception of Pillow inside the block into an OSError that names the file."""
    try:
        yield
    except DAMAGED as error:
        raise OSError(f"{os.fspath(path)} is damaged, or not an image: {error}") from error
