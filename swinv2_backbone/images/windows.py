"""Pictures of any size, read by windows.

Every window has the pixels that :func:`read_image` or :func:`read_bands` gives for the whole
picture. TIFF files of 8 bits or more and NumPy arrays are decoded window by window. Of other kinds
(JPEG, PNG, ...) Pillow decodes the whole picture, which is then kept, 4 bytes per pixel.

Pillow's limit of pixels does not apply here: it protects services from small files with large
pictures, whereas the caller of this module expects large ones.

Legend: h, w are the height and width of a window; n is the number of bands.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from swinv2_backbone.images.bands import BANDS, band_windows
from swinv2_backbone.images.kinds import RefusedImageError, UnsupportedImageError
from swinv2_backbone.images.opening import Opener, opened
from swinv2_backbone.images.orientation import upright
from swinv2_backbone.images.reading import read_image, refusal, rgb_pixels
from swinv2_backbone.images.tiff import TiffBands
from swinv2_backbone.images.tiff_picture import RGB, YCBCR, TiffPicture
from swinv2_backbone.images.tiff_windows import TiffWindows, Window

MOST_WHOLE = 1 << 30  # pixels of a picture that is decoded whole: 4 GB
CONVERT = (
    "save it as a tiled TIFF, which is read by windows: `vips tiffsave IN OUT.tif --tile --bigtiff "
    "--compression deflate`, or `gdal_translate -co TILED=YES -co COMPRESS=DEFLATE IN OUT.tif`"
)


class Windows(NamedTuple):
    """An open picture.

    Attributes:
        height, width: size of the upright picture.
        read: returns a window of it, (h, w, n).
        whole: True if the whole picture is in memory.
    """

    height: int
    width: int
    read: Callable[[Window], np.ndarray]
    whole: bool = False


@contextmanager
def open_windows(
    path: str | os.PathLike, image_format: str, bands: int | None = None, opener: Opener = open
) -> Iterator[Windows]:
    """Open a picture of an ``INPUT.FORMAT`` (RGB, BGR or BANDS) to read windows of it.

    Args:
        bands: the number of bands that it must have in the format BANDS; None: any.

    Raises:
        OSError, ValueError: as :func:`read_image` and :func:`read_bands`; ValueError also for a
            kind that is decoded whole and has more than ``MOST_WHOLE`` pixels.
    """
    if image_format == BANDS:
        with _without_limit(), band_windows(path, bands, opener) as (height, width, read):
            yield Windows(height, width, read)
        return
    with _without_limit(), opened(path, opener) as image:
        if refused := refusal(image):
            raise RefusedImageError(f"{os.fspath(path)}: {refused}")
        found = _tiff_windows(image, path, opener) or _whole(image, path)
        if image_format == "BGR":
            found = found._replace(read=_reversed(found.read))
        yield found


def _reversed(read: Callable[[Window], np.ndarray]) -> Callable[[Window], np.ndarray]:
    """Return a function that reads the channels in the reverse order."""
    return lambda window: read(window)[:, :, ::-1]


@contextmanager
def _without_limit() -> Iterator[None]:
    """Lift Pillow's limit of pixels inside the block."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _whole(image: ImageFile, path: str | os.PathLike) -> Windows:
    """Decode a picture whole."""
    if image.width * image.height > MOST_WHOLE:
        raise UnsupportedImageError(
            f"{os.fspath(path)} has {image.width} x {image.height} pixels, and a {image.format} "
            f"file like this is decoded whole: {CONVERT}"
        )
    image.load()
    turned = upright(image)
    maximum = image.maximum if isinstance(image, TiffPicture) else 65535

    def read(window: Window) -> np.ndarray:
        part = turned.crop(window)
        part.info = turned.info
        return rgb_pixels(part, path, maximum)

    return Windows(turned.height, turned.width, read, whole=True)


def _tiff_windows(image: ImageFile, path: str | os.PathLike, opener: Opener) -> Windows | None:
    """Return windows of a TIFF image; None if it is none, or of a kind that is decoded whole."""
    if isinstance(image, TiffPicture):
        if image.content.rows or image.content.first.bitspersample not in (8, 16, 32):
            return None
        stored, picture = TiffWindows(image.content), image

        def read(window: Window) -> np.ndarray:
            return rgb_pixels(picture.decoded(stored.read(window)), path, picture.maximum)

        return Windows(image.height, image.width, read)
    if not isinstance(image, TiffImageFile) or image.fp is None:
        return None
    try:
        content = TiffBands(image.fp, os.fspath(path))
    except UnsupportedImageError:  # tifffile is missing: Pillow reads this file too
        return None
    if content.rows or content.first.bitspersample not in (8, 16, 32):
        return None
    windows = TiffWindows(content)

    def read_by_pillow(window: Window) -> np.ndarray:
        """Convert a window with Pillow's own rules for the colors of its TIFF file."""
        small = _small_tiff(content, windows.read(window))
        return read_image(path, "RGB", lambda *_: io.BytesIO(small))

    return Windows(*content.size, read_by_pillow)


def _small_tiff(content: TiffBands, pixels: np.ndarray) -> bytes:
    """Return a TIFF file of a window that differs from that of the picture in its size alone."""
    from tifffile import imwrite

    first, file = content.first, io.BytesIO()
    decoded_to_rgb = first.photometric == YCBCR
    imwrite(
        file,
        pixels if pixels.shape[2] > 1 else pixels[:, :, 0],
        byteorder=first.parent.byteorder,
        photometric=RGB if decoded_to_rgb else int(first.photometric),
        extrasamples=[int(one) for one in first.extrasamples] or None,
        colormap=first.colormap,
        planarconfig=1 if pixels.shape[2] > 1 else None,
        metadata=None,
    )
    return file.getvalue()
