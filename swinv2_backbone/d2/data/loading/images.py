"""Pictures and label images from files of any common kind, the right way up, or an error by name.

Detectron2's own reader clips 16 bit pictures, turns some TIFFs twice, takes the brightness of a
palette image for its labels, and does not say which file is broken.

Legend: H, W the height and width of a picture in pixels, after the turn that its EXIF asks for.
Of a file with several frames the first is read.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from detectron2.utils.file_io import PathManager
from PIL import Image

# What Pillow raises on damaged files, depending on where the damage is.
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
ORIENTATION = 274  # the EXIF tag
IMAGE_WIDTH, IMAGE_HEIGHT = 256, 257  # tags of TIFF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # these turns exchange height and width
# Pillow spreads the values of grey pixels of few bits over 0 ... 255.
SPREAD = {"L;2": 85, "L;4": 17}


class Header(NamedTuple):
    """What a file says of its picture before any pixel: ``turned`` if H and W are exchanged."""

    height: int
    width: int
    turned: bool


def read_image(path: str | os.PathLike, format: str) -> np.ndarray:
    """A picture as (H, W, 3) uint8, its channels in the order of ``format``, "RGB" or "BGR".

    Grey becomes three equal channels; of a transparent picture the colours are taken as they are.
    16 bit grey is scaled by its range, 65535 -> 255, whatever the picture's brightest value is:
    pictures of 12 bits in 16 come out dark, but all alike.

    Raises:
        OSError: the file is missing, damaged or no picture.
        ValueError: another ``format``, or pixels whose range is unknown (float, or integers
            beyond 16 bit).
    """
    if format not in ("RGB", "BGR"):
        raise ValueError(f"format must be RGB or BGR, got {format!r}")
    with _opened(path) as image:
        image.load()
        pixels = _upright(image)
    pixels = _eight_bit(pixels, path)
    with _damage_named(path):
        if "transparency" in pixels.info:  # straight to RGB, Pillow would warn
            pixels = pixels.convert("RGBA")
        rgb = np.asarray(pixels.convert("RGB"))
    return rgb if format == "RGB" else rgb[:, :, ::-1]


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """The class number of each pixel, (H, W): uint8, or int32 if one is larger than 255.

    Grey values are taken as they are (1, 2, 4, 8 or 16 bit), of palette images the indices. A turn
    in the EXIF is applied as to pictures, so that labels that were given their picture's EXIF fit.

    Raises:
        OSError: the file is missing, damaged or no picture.
        ValueError: the file holds colours, or another thing than one number per pixel.
    """
    with _opened(path) as image:
        spread = _spread(image)
        image.load()
        upright = _upright(image)
    if upright.mode not in ("1", "L", "P", "I") and not upright.mode.startswith("I;16"):
        raise ValueError(
            f"{os.fspath(path)}: a label image holds one class number per pixel (grey or palette), "
            f"this one has pixels of the kind {upright.mode}"
        )
    labels = np.asarray(upright) // spread if spread > 1 else np.asarray(upright)
    return labels.astype(np.int32 if labels.max() > 255 else np.uint8)


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """(H, W) from the header alone, which is what :func:`read_image` will give.

    Raises:
        OSError: the file is missing, or its header damaged or not that of a picture.
    """
    header = image_header(path)
    return header.height, header.width


def image_header(path: str | os.PathLike) -> Header:
    """As :func:`image_size`, with the word whether the stored height and width are exchanged."""
    with _opened(path) as image:
        turned = _orientation_ahead(image) in SIDEWAYS
        width, height = _stored_size(image)
    return Header(*((width, height) if turned else (height, width)), turned)


def reads_plainly(path: str | os.PathLike) -> bool:
    """Whether ``numpy.asarray(PIL.Image.open(path))`` already gives what :func:`read_labels` does.

    That is how Detectron2's evaluation reads labels.
    """
    with _opened(path) as image:
        return _spread(image) == 1 and _orientation_ahead(image) not in TURNS


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    """The picture in a file, not yet decoded; an error inside the block names the file."""
    with (
        PathManager.open(os.fspath(path), "rb") as file,
        _damage_named(path),
        Image.open(file) as image,
    ):
        yield image


@contextmanager
def _damage_named(path: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except DAMAGED as error:
        raise OSError(f"{os.fspath(path)} is damaged, or no picture: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    """A decoded image, turned as its EXIF says."""
    if image.format == "TIFF":
        return image  # Pillow turned it while decoding
    turn = TURNS.get(_exif_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation_ahead(image: Image.Image) -> int | None:
    """The orientation that the EXIF tells, without decoding wherever that is possible."""
    if image.format == "TIFF":
        return image.tag_v2.get(ORIENTATION)
    if image.format == "PNG" and _tells_more_after_pixels(image.fp):
        image.load()
    return _exif_orientation(image)


def _exif_orientation(image: Image.Image) -> int | None:
    """The orientation in what was read so far; None, as viewers have it, if that is no EXIF."""
    try:
        # Not PngImageFile's method, which decodes every image that has no EXIF.
        return Image.Image.getexif(image).get(ORIENTATION)
    except DAMAGED:
        return None


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) as stored; newer Pillow gives a TIFF's size as turned."""
    if image.format == "TIFF":
        return image.tag_v2[IMAGE_WIDTH], image.tag_v2[IMAGE_HEIGHT]
    return image.size


def _tells_more_after_pixels(file) -> bool:
    """Whether a PNG has its EXIF or texts behind the pixels.  Leaves the position as it was."""
    position, found, pixels = file.tell(), False, False
    file.seek(8)  # behind the signature
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        found |= pixels and kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
        pixels |= kind == b"IDAT"
        file.seek(length + 4, os.SEEK_CUR)  # the data and its checksum
    file.seek(position)
    return found


def _spread(image: Image.Image) -> int:
    """By how much Pillow multiplies the values of an image that is not decoded yet."""
    is_plain = image.format == "PNG" and image.tile and isinstance(image.tile[0][3], str)
    return SPREAD.get(image.tile[0][3], 1) if is_plain else 1


def _eight_bit(image: Image.Image, path: str | os.PathLike) -> Image.Image:
    """The same in 8 bit, where it is more."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(
            f"{os.fspath(path)}: pixels of the kind {image.mode}, here {values.min()} to "
            f"{values.max()}, have no fixed range; save the picture in 8 or 16 bit"
        )
    # 65535 = 255 * 257, so this rounds exactly.
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
