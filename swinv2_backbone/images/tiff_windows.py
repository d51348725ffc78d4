"""Windows of a TIFF file: only the tiles or strips that a window meets are decoded.

Legend: h, w are the height and width of a window. Windows are upright; "stored" is before the
orientation of the file is applied.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swinv2_backbone.images.kinds import DamagedImageError
from swinv2_backbone.images.tiff import TiffBands, require_whole, turned

if TYPE_CHECKING:
    from tifffile import TiffPage

CACHED = 1 << 26  # bytes of decoded segments that are kept at least
PLANES = 2  # the value of PlanarConfiguration for bands stored one after the other


class Window(NamedTuple):
    """A rectangle of pixels; ``right`` and ``bottom`` are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left


class Segment(NamedTuple):
    """A tile or strip of a page: its number in the file, its place and its first band."""

    number: int
    place: Window
    band: int


class TiffWindows:
    """Windows of an open TIFF file, in the stored dtype.

    Decoded segments are kept for the next windows, as many as one window needs or ``CACHED`` bytes.
    Strips are as wide as the picture, so the memory grows with the width for them, tiles need the
    same for any picture.

    Args:
        content: the file, whose pages are not rows (``content.rows``).
    """

    def __init__(self, content: TiffBands):
        self._content = content
        self._cache: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._cached = 0
        self._checked = False

    def read(self, window: Window) -> np.ndarray:
        """Decode a window, (h, w, bands).

        Raises:
            OSError: the file is damaged there.
        """
        try:
            if not self._checked:
                for page in self._content.pages:
                    require_whole(page)
                self._checked = True
            height, width = self._content.size
            stored = stored_window(window, height, width, self._content.orientation)
            pages = [self._of_page(index, stored) for index in range(len(self._content.pages))]
        except Exception as error:  # of tifffile or a codec
            why = f"tifffile cannot decode it at {window}: {error}"
            raise DamagedImageError(self._content.name, why) from error
        return turned(np.concatenate(pages, axis=2), self._content.orientation)

    def _of_page(self, index: int, window: Window) -> np.ndarray:
        page = self._content.pages[index]
        assert page.dtype is not None
        if page.is_final and not page.is_tiled:
            return _raw(page, window)
        pixels = np.empty((*window.shape, page.samplesperpixel), page.dtype)
        segments = list(_segments(page, window))
        for segment in segments:
            self._fill(pixels, window, segment, self._decoded(index, segment.number))
        needed = sum(self._cache[index, segment.number].nbytes for segment in segments)
        self._forget(max(CACHED, 2 * needed * len(self._content.pages)))
        return pixels

    def _decoded(self, index: int, number: int) -> np.ndarray:
        """Return a decoded segment (height, width, bands); one of size 1 if it is constant."""
        if (index, number) in self._cache:
            self._cache.move_to_end((index, number))
            return self._cache[index, number]
        page = self._content.pages[index]
        data = None
        if page.databytecounts[number]:
            handle = page.parent.filehandle
            handle.seek(page.dataoffsets[number])
            data = handle.read(page.databytecounts[number])
        tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        decoded = page.decode(data, number, **{k: v for k, v in tables.items() if v is not None})[0]
        if decoded is None:  # a sparse file leaves out segments without data
            decoded = np.full((1, 1, 1, 1), page.nodata, page.dtype)
        self._cache[index, number] = decoded[0]
        self._cached += decoded.nbytes
        return decoded[0]

    def _fill(
        self, pixels: np.ndarray, window: Window, segment: Segment, decoded: np.ndarray
    ) -> None:
        """Copy what a segment has of a window."""
        place, band = segment.place, segment.band
        left, top = max(window.left, place.left), max(window.top, place.top)
        right, bottom = min(window.right, place.right), min(window.bottom, place.bottom)
        if decoded.size > 1:
            decoded = decoded[
                top - place.top : bottom - place.top, left - place.left : right - place.left
            ]
        target = pixels[
            top - window.top : bottom - window.top, left - window.left : right - window.left
        ]
        if self._content.first.planarconfig == PLANES:
            target = target[:, :, band : band + 1]
        target[:] = decoded

    def _forget(self, limit: int) -> None:
        while self._cached > limit:
            self._cached -= self._cache.popitem(last=False)[1].nbytes


def stored_window(window: Window, height: int, width: int, orientation: int) -> Window:
    """Return where a window of an upright (height, width) picture is stored."""
    left, top, right, bottom = window
    if orientation in (2, 3, 6, 7):
        left, right = width - right, width - left
    if orientation in (3, 4, 7, 8):
        top, bottom = height - bottom, height - top
    if orientation > 4:
        return Window(top, left, bottom, right)
    return Window(left, top, right, bottom)


def _segments(page: TiffPage, window: Window) -> Iterator[Segment]:
    """Yield the segments of a page that meet a window."""
    height = page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
    width = page.tilewidth if page.is_tiled else page.imagewidth
    down, across = -(-page.imagelength // height), -(-page.imagewidth // width)
    bands = page.samplesperpixel if page.planarconfig == PLANES else 1
    rows = range(window.top // height, -(-window.bottom // height))
    columns = range(window.left // width, -(-window.right // width))
    for band, row, column in itertools.product(range(bands), rows, columns):
        left, top = column * width, row * height
        right = min(left + width, page.imagewidth)
        bottom = min(top + height, page.imagelength)
        number = (band * down + row) * across + column
        yield Segment(number, Window(left, top, right, bottom), band)


def _raw(page: TiffPage, window: Window) -> np.ndarray:
    """Read a window of pixels that are stored without compression in one piece."""
    assert page.dtype is not None
    dtype = page.dtype.newbyteorder(page.parent.byteorder)
    planes = page.planarconfig == PLANES and page.samplesperpixel > 1
    bands = 1 if planes else page.samplesperpixel
    height, width = window.shape
    size = dtype.itemsize * bands  # bytes of a pixel
    pixels = np.empty((page.samplesperpixel // bands, height, width, bands), page.dtype)
    for plane, row in itertools.product(range(len(pixels)), range(height)):
        line = plane * page.imagelength + window.top + row
        handle = page.parent.filehandle
        handle.seek(page.dataoffsets[0] + (line * page.imagewidth + window.left) * size)
        read = np.frombuffer(handle.read(width * size), dtype)
        pixels[plane, row] = read.reshape(width, bands)
    return np.moveaxis(pixels[..., 0], 0, 2) if planes else pixels[0]
