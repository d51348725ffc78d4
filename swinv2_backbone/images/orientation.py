"""The orientation that an image's EXIF data asks for, read from the header where possible.

Detectron2's own reader rotates some TIFF files twice.
"""

from __future__ import annotations

import os
import struct
from typing import IO

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from swinv2_backbone.images.opening import DAMAGED
from swinv2_backbone.images.tiff_picture import TiffPicture

ORIENTATION = 274  # the EXIF tag
IMAGE_WIDTH, IMAGE_HEIGHT = 256, 257  # TIFF tags
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TIFF_IMAGES = (TiffImageFile, TiffPicture)  # decoded upright
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange height and width


def upright(image: ImageFile) -> Image.Image:
    """Apply the EXIF orientation to a decoded image."""
    if isinstance(image, TIFF_IMAGES):
        return image
    orientation = _exif_orientation(image)
    return image.transpose(TRANSPOSES[orientation]) if orientation in TRANSPOSES else image


def orientation_of(image: ImageFile) -> int | None:
    """Return the EXIF orientation of an image, without decoding it where that is possible."""
    if isinstance(image, TIFF_IMAGES):
        return image.tag_v2.get(ORIENTATION)
    if isinstance(image, PngImageFile) and image.fp and _has_metadata_after_pixels(image.fp):
        image.load()
    return _exif_orientation(image)


def stored_size(image: ImageFile) -> tuple[int, int]:
    """Return (width, height) as stored; recent Pillow reports a TIFF's size after the rotation."""
    if isinstance(image, TIFF_IMAGES):
        return image.tag_v2[IMAGE_WIDTH], image.tag_v2[IMAGE_HEIGHT]
    return image.size


def _exif_orientation(image: ImageFile) -> int | None:
    """Return the orientation in the EXIF data read so far; None, as viewers do, if it is broken."""
    try:
        # Not PngImageFile's method, which decodes every image without EXIF data.
        return Image.Image.getexif(image).get(ORIENTATION)
    except DAMAGED:
        return None


def _has_metadata_after_pixels(file: IO[bytes]) -> bool:
    """Return True if a PNG has EXIF or text chunks after the pixels. Keeps the file position."""
    position, found, pixels = file.tell(), False, False
    file.seek(8)  # behind the signature
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        found |= pixels and kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
        pixels |= kind == b"IDAT"
        file.seek(length + 4, os.SEEK_CUR)  # the data and its checksum
    file.seek(position)
    return found
