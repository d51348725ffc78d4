"""Images and label images read from files of any common format, in upright orientation.

Detectron2's own reader clips 16-bit images, reads the brightness of a palette image as its labels,
and does not name the file that is broken.

Legend: H, W are the height and width in pixels after the EXIF rotation. Of a file with several
frames the first is read.
"""

from __future__ import annotations

import os

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from swinv2_backbone.images.headers import Header, plain_header
from swinv2_backbone.images.kinds import RefusedImageError
from swinv2_backbone.images.opening import Opener, damage_named, opened
from swinv2_backbone.images.orientation import (
    SIDEWAYS,
    TIFF_IMAGES,
    TRANSPOSES,
    orientation_of,
    stored_size,
    upright,
)
from swinv2_backbone.images.pillow_tiff import PHOTOMETRIC, gray_pages
from swinv2_backbone.images.tiff_picture import BANDS, RANGE, TiffPicture, eight_bit

# Pillow scales the gray values of images of few bits to 0 ... 255, by these factors.
SCALES = {"L;2": 85, "L;4": 17}


def read_image(path: str | os.PathLike, format: str, opener: Opener = open) -> np.ndarray:
    """Read an image as (H, W, 3) uint8 with the channel order ``format``, "RGB" or "BGR".

    Gray becomes three equal channels; the alpha channel of a transparent image is dropped. 16-bit
    gray is scaled by its range, 65535 -> 255, regardless of the brightest value: images of 12 bits
    stored in 16 come out dark, but consistently so. 16-bit colors are scaled alike, by Pillow to
    the next lower integer. Of a TIFF file of four bands the first three are the colors.

    Args:
        opener: opens the file; the builtin ``open``, or one for files elsewhere.

    Raises:
        OSError: the file is missing, damaged or not an image.
        UnsupportedImageError: it is sound, but needs an optional library or a conversion.
        ValueError: ``format`` is unknown, or so is the range of the pixels (floats, or integers
            beyond 16 bits), or the image has bands that are not colors.
    """
    if format not in ("RGB", "BGR"):
        raise ValueError(f"format must be RGB or BGR, got {format!r}")
    with opened(path, opener) as image:
        if refused := refusal(image):
            raise RefusedImageError(f"{os.fspath(path)}: {refused}")
        image.load()
        pixels = upright(image)
    rgb = rgb_pixels(pixels, path, _maximum(pixels))
    return rgb if format == "RGB" else rgb[:, :, ::-1]


def rgb_pixels(image: Image.Image, path: str | os.PathLike, maximum: int) -> np.ndarray:
    """Convert a decoded image, or a part of one, to (H, W, 3) uint8; see :func:`read_image`.

    Args:
        maximum: the highest value that its integers can have.
    """
    pixels = _eight_bit(image, path, maximum)
    with damage_named(path):
        if "transparency" in pixels.info:  # Pillow would warn of a direct conversion to RGB
            pixels = pixels.convert("RGBA")
        return np.asarray(pixels.convert("RGB"))


def read_labels(path: str | os.PathLike, opener: Opener = open) -> np.ndarray:
    """Read the class number of each pixel, (H, W): uint8, or int32 if one is above 255.

    The labels are the stored values of a gray image (1, 2, 4, 8 or 16 bits) or the indices of a
    palette image. The EXIF rotation is applied, so that labels with the EXIF data of their image
    match it.

    Raises:
        OSError: the file is missing, damaged or not an image.
        ValueError: the file holds colors, or otherwise not one number per pixel.
    """
    with opened(path, opener) as image:
        if _inverted(image) or isinstance(image, TiffImageFile) and gray_pages(image):
            raise RefusedImageError(
                f"{os.fspath(path)}: a TIFF of several gray pages, or with 0 for white, has no "
                "certain class numbers; save the labels as PNG"
            )
        scale = _scale(image)
        image.load()
        turned = upright(image)
    if turned.mode not in ("1", "L", "P", "I") and not turned.mode.startswith("I;16"):
        raise RefusedImageError(
            f"{os.fspath(path)}: a label image holds one class number per pixel (gray or palette), "
            f"this one has pixels of the kind {turned.mode}"
        )
    labels = np.asarray(turned) // scale if scale > 1 else np.asarray(turned)
    return labels.astype(np.int32 if labels.max() > 255 else np.uint8)


def image_size(path: str | os.PathLike, opener: Opener = open) -> tuple[int, int]:
    """Return the (H, W) that :func:`read_image` will give, from the header alone.

    Raises:
        OSError: the file is missing, damaged in its header or not an image.
    """
    header = image_header(path, opener)
    return header.height, header.width


def image_header(path: str | os.PathLike, opener: Opener = open) -> Header:
    """Return the size as :func:`image_size` does, and whether the stored sides are exchanged."""
    if found := plain_header(path):
        return found
    with opened(path, opener) as image:
        turned = orientation_of(image) in SIDEWAYS
        width, height = stored_size(image)
        refused = refusal(image)
    return Header(*((width, height) if turned else (height, width)), turned, refused)


def reads_plainly(path: str | os.PathLike, opener: Opener = open) -> bool:
    """Return True if ``numpy.asarray(PIL.Image.open(path))`` equals :func:`read_labels`.

    Detectron2's evaluation reads labels that way.
    """
    with opened(path, opener) as image:
        plain = not isinstance(image, TiffPicture) and _scale(image) == 1
        return plain and orientation_of(image) not in TRANSPOSES


def refusal(image: ImageFile) -> str:
    """Return why an undecoded image cannot be an RGB image, as far as its header tells, or ""."""
    if isinstance(image, TiffPicture):
        return image.refused
    if image.mode == "F":
        return RANGE.format("float", "")
    if isinstance(image, TiffImageFile) and gray_pages(image):
        return BANDS.format(image.n_frames)
    return ""


def _inverted(image: ImageFile) -> bool:
    """Return True for a TIFF image whose 0 is white, which is inverted while it is decoded."""
    return isinstance(image, TIFF_IMAGES) and image.tag_v2.get(PHOTOMETRIC, 1) == 0


def _scale(image: ImageFile) -> int:
    """Return the factor by which Pillow will multiply the values of an undecoded image."""
    if image.format not in ("PNG", "TIFF") or not image.tile:
        return 1
    mode = image.tile[0][3]
    mode = mode[0] if isinstance(mode, tuple) else mode
    return SCALES.get(mode, 1) if isinstance(mode, str) else 1


def _maximum(image: Image.Image) -> int:
    return image.maximum if isinstance(image, TiffPicture) else 65535


def _eight_bit(image: Image.Image, path: str | os.PathLike, maximum: int) -> Image.Image:
    """Reduce an image of more than 8 bits to 8 bits, and spread one of fewer."""
    if not image.mode.startswith(("I", "F")) and (maximum >= 255 or image.mode != "L"):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > maximum:
        kind, found = image.mode, f", here {values.min()} to {values.max()},"
        raise RefusedImageError(f"{os.fspath(path)}: {RANGE.format(kind, found)}")
    return Image.fromarray(eight_bit(values, maximum))
