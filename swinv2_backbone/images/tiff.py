"""TIFF files with any number of bands, decoded by tifffile (the extra ``images``).

Legend: H, W are the height and width in pixels after the orientation; a band is a channel.
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import Image

from swinv2_backbone.images.kinds import (
    EXTRA,
    DamagedImageError,
    UnsupportedImageError,
)

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

ORIENTATION = 274  # the TIFF tag, which EXIF uses too
BLACK_IS_ZERO = 1  # this or 0 (white is zero): a gray image


def tiff_pixels(path: str | os.PathLike) -> np.ndarray:
    """Read all bands of a TIFF file, (H, W, bands), in their stored dtype.

    The bands may be stored pixel by pixel, one after the other, or as gray pages of one size;
    overviews and masks are skipped. The orientation is applied. Values are those stored: palette
    indices are not replaced by colors, and white may be 0.

    Raises:
        OSError: the file is missing, damaged or not a TIFF file, or it is compressed in a way that
            cannot be read, or tifffile is missing; the message says which.
    """
    with open(path, "rb") as file:
        return TiffBands(file, os.fspath(path)).read()


class TiffBands:
    """The bands of an open TIFF file; decoded by :meth:`read`.

    Args:
        file: binary file, open for reading.
        name: name of the file, for messages.

    Attributes:
        pages: the pages of bands: gray ones of the same size, or the first page alone.
        first: the first page.
        size: (H, W).
        bands: number of bands.
        orientation: EXIF orientation, 1 to 8.
        rows: True if each page is a row, as tifffile may store an array.
        stored_shape: (H, W, bands) before the orientation is applied.

    Raises:
        OSError: see :func:`tiff_pixels`.
    """

    def __init__(self, file: IO[bytes], name: str):
        try:
            import imagecodecs  # noqa: F401
            from tifffile import TIFF, TiffFile
        except ImportError as error:
            raise UnsupportedImageError(
                f"{name} is a TIFF image that Pillow does not read, or not correctly: {EXTRA}"
            ) from error
        self.name = name
        try:
            content = TiffFile(file)
            self.pages = _pages_of_bands(content)
            self.first = self.pages[0]
            self.rows = _pages_are_rows(content, self.pages)
            self.orientation = int(self.first.tags.valueof(ORIENTATION, default=1))
            self.stored_shape = self._shape()
            _check_size(self.stored_shape)
            codec = self.first.compression in TIFF.DECOMPRESSORS
        except Exception as error:  # tifffile raises errors of any kind
            raise DamagedImageError(name, error) from error
        if not codec:
            kind = getattr(self.first.compression, "name", self.first.compression)
            raise UnsupportedImageError(
                f"{name} is a TIFF image compressed by {kind}, which is not read: save it with "
                "another compression, for example deflate"
            )

    @property
    def size(self) -> tuple[int, int]:
        height, width, _ = self.stored_shape
        return (width, height) if self.orientation > 4 else (height, width)

    @property
    def bands(self) -> int:
        return self.stored_shape[2]

    def read(self) -> np.ndarray:
        """Decode the bands, (H, W, bands), in their stored dtype."""
        try:
            for page in self.pages:
                require_whole(page)
            stored = np.stack([page.asarray(maxworkers=1) for page in self.pages])
        except Exception as error:  # of tifffile or a codec
            raise DamagedImageError(self.name, f"tifffile cannot decode it: {error}") from error
        axes = self.first.axes
        if len(self.pages) > 1 or axes == "SYX":
            pixels = stored if self.rows else np.moveaxis(stored.squeeze(), 0, -1)
        else:
            pixels = stored[0] if axes == "YXS" else stored[0, :, :, None]
        if pixels.shape != self.stored_shape:
            raise DamagedImageError(self.name, f"{axes} of shape {stored.shape}")
        return turned(pixels, self.orientation)

    def _shape(self) -> tuple[int, int, int]:
        """Return the stored height and width, and the number of bands."""
        page, count = self.first, len(self.pages)
        if page.imagedepth != 1:
            raise ValueError(f"a volume of {page.imagedepth} slices")
        if self.rows:
            return count, page.imagelength, page.imagewidth
        return page.imagelength, page.imagewidth, count * page.samplesperpixel


def _pages_of_bands(file: TiffFile) -> list[TiffPage]:
    """Return the gray pages that have the size and dtype of the first, or the first page alone."""
    first = file.pages.first
    if first.samplesperpixel != 1 or first.photometric > BLACK_IS_ZERO or first.bitspersample == 1:
        return [first]
    found = [first]
    for page in (file.pages.get(index) for index in range(1, len(file.pages))):
        same = (page.shape, page.dtype, page.photometric) == (
            *(first.shape, first.dtype),
            first.photometric,
        )
        if same and not (page.is_reduced or page.is_mask):
            found.append(page)
    return found


def _pages_are_rows(file: TiffFile, pages: list[TiffPage]) -> bool:
    """Return True if tifffile wrote an array (H, W, bands) as H pages of (W, bands).

    It does so unless told which axis holds the bands, and notes the shape of the array.
    """
    count, (height, width) = len(pages), pages[0].shape[:2]
    if not file.is_shaped or count == 1:
        return False
    return file.series[0].shape == (count, height, width) and width < count


def _check_size(shape: tuple[int, int, int]) -> None:
    """Refuse more pixels than Pillow would."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and shape[0] * shape[1] > 2 * limit:
        raise ValueError(f"{shape[1]} x {shape[0]} pixels, more than Pillow's limit of {2 * limit}")


def require_whole(page: TiffPage) -> None:
    """Raise ValueError if the file ends before a page's data, which decoders may not notice."""
    size = page.parent.filehandle.size
    ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts)]
    if max(ends, default=0) > size:
        raise ValueError(f"it has {size} bytes, of at least {max(ends)}")


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an orientation to (H, W, bands) as stored."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
