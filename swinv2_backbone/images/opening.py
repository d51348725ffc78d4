"""Image files opened with Pillow; any damage is an OSError that names the file."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile, StubImageFile
from PIL.TiffImagePlugin import TiffImageFile

from swinv2_backbone.images.kinds import (
    DEVELOP,
    EXTRA,
    HEAD,
    HEIF,
    TIFF,
    DamagedImageError,
    RefusedImageError,
    UnsupportedImageError,
    kind_of,
)
from swinv2_backbone.images.pillow_tiff import is_preview, pillow_reads
from swinv2_backbone.images.tiff_picture import TiffPicture

# Opens a file as the builtin ``open`` does, perhaps one that is not on this machine.
Opener = Callable[[str, str], IO[bytes]]

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
def opened(path: str | os.PathLike, opener: Opener = open) -> Iterator[ImageFile]:
    """Open an image without decoding it; an error inside the block names the file.

    Raises:
        UnsupportedImageError: it is sound, but needs another library or conversion.
    """
    name = os.fspath(path)
    with opener(name, "rb") as file, damage_named(path), _identified(file, name) as image:
        yield image


@contextmanager
def damage_named(path: str | os.PathLike) -> Iterator[None]:
    """Turn any exception of Pillow inside the block into an OSError that names the file."""
    try:
        yield
    except (DamagedImageError, UnsupportedImageError, RefusedImageError):
        raise
    except DAMAGED as error:
        raise DamagedImageError(os.fspath(path), error) from error


def _identified(file: IO[bytes], name: str) -> ImageFile:
    """Open an image by Pillow, or by the library that reads it right."""
    try:
        image = Image.open(file)
        # Stubs have no decoder, and Ghostscript would run the program that an EPS file is.
        if isinstance(image, StubImageFile) or image.format == "EPS":
            raise UnidentifiedImageError(f"Pillow only recognizes {image.format} files")
    except UnidentifiedImageError:
        kind = kind_of(_head(file))
        if kind is TIFF:
            return TiffPicture(file, name)
        if kind is HEIF:
            return _opened_heif(file, name)
        if kind is None:
            raise
        raise UnsupportedImageError(f"{name} is {kind.name}: {kind.remedy}") from None
    if not isinstance(image, TiffImageFile):
        return image
    if is_preview(image) or kind_of(_head(file)) not in (TIFF, None):
        raise UnsupportedImageError(f"{name} is a raw camera file: {DEVELOP}")
    return image if pillow_reads(image) else TiffPicture(file, name)


def _head(file: IO[bytes]) -> bytes:
    """Return the first bytes of a file, which is left at its start."""
    file.seek(0)
    head = file.read(HEAD)
    file.seek(0)
    return head


def _opened_heif(file: IO[bytes], name: str) -> ImageFile:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise UnsupportedImageError(f"{name} is {HEIF.name}, which needs {EXTRA}") from error
    register_heif_opener()
    return Image.open(file)
