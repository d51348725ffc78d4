"""Images and label images read from files of any common format, in upright orientation.

Detectron2's own reader clips 16-bit images, reads the brightness of a palette image as its labels,
and does not name the file that is broken.

Legend: H, W are the height and width in pixels after the EXIF rotation. Of a file with several
frames the first is read.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from swinv2_backbone.d2.data.loading.opening import damage_named, opened
from swinv2_backbone.d2.data.loading.orientation import (
    SIDEWAYS,
    TRANSPOSES,
    orientation_of,
    stored_size,
    upright,
)

# Pillow scales the gray values of images of few bits to 0 ... 255, by these factors.
SCALES = {"L;2": 85, "L;4": 17}


class Header(NamedTuple):
    """The size of an image by its header; ``turned`` if the stored H and W are exchanged."""

    height: int
    width: int
    turned: bool


def read_image(path: str | os.PathLike, format: str) -> np.ndarray:
    """Read an image as (H, W, 3) uint8 with the channel order ``format``, "RGB" or "BGR".

    Gray becomes three equal channels; the alpha channel of a transparent image is dropped. 16-bit
    gray is scaled by its range, 65535 -> 255, regardless of the brightest value: images of 12 bits
    stored in 16 come out dark, but consistently so.

    Raises:
        OSError: the file is missing, damaged or not an image.
        ValueError: ``format`` is unknown, or so is the range of the pixels (floats, or integers
            beyond 16 bits).
    """
    if format not in ("RGB", "BGR"):
        raise ValueError(f"format must be RGB or BGR, got {format!r}")
    with opened(path) as image:
        image.load()
        pixels = upright(image)
    pixels = _eight_bit(pixels, path)
    with damage_named(path):
        if "transparency" in pixels.info:  # Pillow would warn of a direct conversion to RGB
            pixels = pixels.convert("RGBA")
        rgb = np.asarray(pixels.convert("RGB"))
    return rgb if format == "RGB" else rgb[:, :, ::-1]


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """Read the class number of each pixel, (H, W): uint8, or int32 if one is above 255.

    The labels are the stored values of a gray image (1, 2, 4, 8 or 16 bits) or the indices of a
    palette image. The EXIF rotation is applied, so that labels with the EXIF data of their image
    match it.

    Raises:
        OSError: the file is missing, damaged or not an image.
        ValueError: the file holds colors, or otherwise not one number per pixel.
    """
    with opened(path) as image:
        scale = _scale(image)
        image.load()
        turned = upright(image)
    if turned.mode not in ("1", "L", "P", "I") and not turned.mode.startswith("I;16"):
        raise ValueError(
            f"{os.fspath(path)}: a label image holds one class number per pixel (gray or palette), "
            f"this one has pixels of the kind {turned.mode}"
        )
    labels = np.asarray(turned) // scale if scale > 1 else np.asarray(turned)
    return labels.astype(np.int32 if labels.max() > 255 else np.uint8)


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Return the (H, W) that :func:`read_image` will give, from the header alone.

    Raises:
        OSError: the file is missing, damaged in its header or not an image.
    """
    header = image_header(path)
    return header.height, header.width


def image_header(path: str | os.PathLike) -> Header:
    """Return the size as :func:`image_size` does, and whether the stored sides are exchanged."""
    with opened(path) as image:
        turned = orientation_of(image) in SIDEWAYS
        width, height = stored_size(image)
    return Header(*((width, height) if turned else (height, width)), turned)


def reads_plainly(path: str | os.PathLike) -> bool:
    """Return True if ``numpy.asarray(PIL.Image.open(path))`` equals :func:`read_labels`.

    Detectron2's evaluation reads labels that way.
    """
    with opened(path) as image:
        return _scale(image) == 1 and orientation_of(image) not in TRANSPOSES


def _scale(image: ImageFile) -> int:
    """Return the factor by which Pillow will multiply the values of an undecoded image."""
    if image.format != "PNG" or not image.tile:
        return 1
    mode = image.tile[0][3]
    return SCALES.get(mode, 1) if isinstance(mode, str) else 1


def _eight_bit(image: Image.Image, path: str | os.PathLike) -> Image.Image:
    """Reduce an image of more than 8 bits to 8 bits."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(
            f"{os.fspath(path)}: pixels of the kind {image.mode}, here {values.min()} to "
            f"{values.max()}, have no fixed range; save the image in 8 or 16 bits"
        )
    # 65535 = 255 * 257, so this rounds exactly.
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
