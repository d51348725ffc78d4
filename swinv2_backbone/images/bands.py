"""Images of any number of bands, from TIFF files and NumPy arrays (``INPUT.FORMAT: BANDS``).

Satellite, microscope and depth cameras write bands that are not colors. Pixels reach the model as
they are stored, in float32; ``MODEL.PIXEL_MEAN`` and ``PIXEL_STD`` have one number per band.

Legend: H, W are the height and width in pixels; n is the number of bands.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from swinv2_backbone.images.headers import Header
from swinv2_backbone.images.kinds import (
    HEAD,
    TIFF,
    DamagedImageError,
    RefusedImageError,
    UnsupportedImageError,
    kind_of,
)
from swinv2_backbone.images.opening import Opener
from swinv2_backbone.images.reading import image_header, read_image
from swinv2_backbone.images.tiff import TiffBands
from swinv2_backbone.images.tiff_windows import TiffWindows, Window

BANDS = "BANDS"  # the value of INPUT.FORMAT, instead of RGB or BGR
BAND_SUFFIXES = (".npy", ".tif", ".tiff")
NUMPY = b"\x93NUMPY"
STRETCHED = (2, 98)  # percentiles of a band that are drawn as 0 and 255


def read_bands(
    path: str | os.PathLike, bands: int | None = None, *, opener: Opener = open
) -> np.ndarray:
    """Read all bands of a file in their stored order, as (H, W, n) float32 without scaling.

    A TIFF file may have any layout that :func:`tiff_pixels` reads. A NumPy array (.npy) is (H, W),
    (H, W, n), or (n, H, W) if only its first axis has ``bands`` entries. Values are rounded to
    float32, which holds integers up to 2**24 exactly.

    Args:
        bands: the number of bands that the file must have; None: any.
        opener: opens the file; the builtin ``open``, or one for files elsewhere, which must give a
            file on this machine.

    Raises:
        OSError: the file is missing, damaged or of another kind, or has NaN or infinite pixels.
        ValueError: it has another number of bands, or pixels that are not real numbers.
    """
    name = os.fspath(path)
    with opener(name, "rb") as file:
        stored = _stored(file, name)
        _, axis = _header(stored, bands)
        if refused := _refusal(stored, bands):
            raise RefusedImageError(f"{name}: {refused}")
        pixels = stored.read() if isinstance(stored, TiffBands) else _last(stored, axis)
    return _as_floats(pixels, name)


@contextmanager
def band_windows(
    path: str | os.PathLike, bands: int | None = None, opener: Opener = open
) -> Iterator[tuple[int, int, Callable[[Window], np.ndarray]]]:
    """Open a file for :func:`read_bands` by windows: H, W and a function of a window."""
    name = os.fspath(path)
    with opener(name, "rb") as file:
        stored = _stored(file, name)
        (height, width), axis = _header(stored, bands)
        if refused := _refusal(stored, bands):
            raise RefusedImageError(f"{name}: {refused}")
        if not isinstance(stored, TiffBands):
            # Mapped anew for each window, so that its pages do not stay in memory.
            yield (
                height,
                width,
                lambda window: _part(_last(_mapped(file, name), axis), window, name),
            )
        elif stored.rows or not _whole_bytes(stored):
            pixels = stored.read()
            yield height, width, lambda window: _part(pixels, window, name)
        else:
            windows = TiffWindows(stored)
            yield height, width, lambda window: _as_floats(windows.read(window), name)


def _part(pixels: np.ndarray, window: Window, name: str) -> np.ndarray:
    return _as_floats(pixels[window.top : window.bottom, window.left : window.right], name)


def _whole_bytes(content: TiffBands) -> bool:
    bits = content.first.bitspersample
    return isinstance(bits, int) and bits % 8 == 0


def _as_floats(pixels: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # reported as infinite
        found = np.ascontiguousarray(pixels, np.float32)
    if not np.isfinite(found).all():
        count = int((~np.isfinite(found).all(axis=2)).sum())
        raise UnsupportedImageError(
            f"{name}: NaN or infinity in pixels ({count}), as pixels without data often have: "
            "replace them by a number, such as the mean of their band"
        )
    return found


def bands_header(
    path: str | os.PathLike, bands: int | None = None, *, opener: Opener = open
) -> Header:
    """Return the size of the image that :func:`read_bands` gives, from the header alone.

    Raises:
        OSError: the file is missing, damaged in its header or of another kind.
    """
    with opener(os.fspath(path), "rb") as file:
        stored = _stored(file, os.fspath(path))
        (height, width), _ = _header(stored, bands)
        turned = isinstance(stored, TiffBands) and stored.orientation > 4
        return Header(height, width, turned, _refusal(stored, bands))


def header_of(path: str | os.PathLike, bands: int | None, *, opener: Opener = open) -> Header:
    """Return the header of an RGB image (``bands`` None) or of one of that many bands."""
    if bands is None:
        return image_header(path, opener)
    return bands_header(path, bands, opener=opener)


def read_pixels(
    path: str | os.PathLike, image_format: str, bands: int | None, *, opener: Opener = open
) -> np.ndarray:
    """Read an image in an ``INPUT.FORMAT``: by :func:`read_bands`, or by :func:`read_image`."""
    if image_format == BANDS:
        return read_bands(path, bands, opener=opener)
    return read_image(path, image_format, opener)


def read_picture(
    path: str | os.PathLike,
    image_format: str = "RGB",
    display_bands: Sequence[int] = (),
    *,
    opener: Opener = open,
) -> np.ndarray:
    """Read an image in an ``INPUT.FORMAT`` as a picture to draw on, (H, W, 3) uint8 RGB."""
    if image_format == BANDS:
        return as_picture(read_bands(path, opener=opener), display_bands)[:, :, ::-1]
    return read_image(path, "RGB", opener)


def as_picture(pixels: np.ndarray, display_bands: Sequence[int] = ()) -> np.ndarray:
    """Return three bands of (H, W, n) as a picture to draw on, (H, W, 3) uint8 in BGR order.

    Args:
        display_bands: the bands for red, green and blue, from 0; empty: the first three or, with
            fewer than three, the first as gray.
    """
    shown = tuple(display_bands) or ((0, 1, 2) if pixels.shape[2] > 2 else (0, 0, 0))
    chosen = pixels[:, :, list(reversed(shown))].astype(np.float32)
    low, high = np.percentile(chosen, STRETCHED, axis=(0, 1)).astype(np.float32)
    span = np.where(high > low, high - low, 1)
    return (255 * np.clip((chosen - low) / span, 0, 1)).round().astype(np.uint8)


def has_bands(path: Path) -> bool:
    """Return True for the name of a file that :func:`read_bands` may read."""
    return path.suffix.lower() in BAND_SUFFIXES


def bands_of(image_format: str, pixel_mean: Sequence[float]) -> int | None:
    """Return the number of bands that images must have; None for the formats RGB and BGR."""
    return len(pixel_mean) if image_format == BANDS else None


def _stored(file: IO[bytes], name: str) -> TiffBands | np.ndarray:
    """Open the pixels of a file, without reading them."""
    file.seek(0)
    head = file.read(HEAD)
    file.seek(0)
    if kind_of(head) is TIFF:
        return TiffBands(file, name)
    if not head.startswith(NUMPY):
        kind = kind_of(head)
        found = kind.name if kind else f"a {Path(name).suffix or 'file without suffix'}"
        raise UnsupportedImageError(
            f"{name} is {found}, but INPUT.FORMAT {BANDS} (image_format) reads TIFF and .npy "
            "alone: convert it"
        )
    return _mapped(file, name)


def _mapped(file: IO[bytes], name: str) -> np.ndarray:
    """Map a NumPy array into memory."""
    try:
        array = np.load(file.name, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DamagedImageError(name, error) from error
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise UnsupportedImageError(
            f"{name} is an array of shape {array.shape}: an image is (height, width, bands), "
            "(bands, height, width) or (height, width)"
        )
    return array


def _header(stored: TiffBands | np.ndarray, bands: int | None) -> tuple[tuple[int, int], int]:
    """Return (H, W), and the axis of the bands in an array."""
    if isinstance(stored, TiffBands):
        return stored.size, 2
    first = stored.ndim == 3 and stored.shape[0] == bands != stored.shape[2]
    height, width = stored.shape[1:] if first else stored.shape[:2]
    return (height, width), 0 if first else 2


def _refusal(stored: TiffBands | np.ndarray, bands: int | None) -> str:
    """Return why an image cannot be read as ``bands`` bands, or ""."""
    found: tuple[int, ...]
    if isinstance(stored, TiffBands):
        dtype, found = stored.first.dtype, (stored.bands,)
        words = f"{stored.bands} band{'s' * (stored.bands != 1)}"
    else:
        dtype, words = stored.dtype, f"an array of shape {stored.shape}"
        found = (stored.shape[0], stored.shape[2]) if stored.ndim == 3 else (1,)
    if dtype is None or dtype.kind not in "buif":
        return f"its pixels are of the dtype {dtype}, not real numbers"
    if bands is None or bands in found:
        return ""
    return f"it has {words}, but MODEL.PIXEL_MEAN (pixel_mean) has {bands} numbers, one per band"


def _last(array: np.ndarray, axis: int) -> np.ndarray:
    """Return an array of bands as (H, W, n)."""
    return array[:, :, None] if array.ndim == 2 else np.moveaxis(array, axis, 2)
