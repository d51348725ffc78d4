"""TIFF images that Pillow does not read correctly, decoded by tifffile into Pillow's images."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from swinv2_backbone.images.kinds import RefusedImageError
from swinv2_backbone.images.tiff import ORIENTATION, TiffBands

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = (
    0,
    1,
    2,
    3,
    5,
    6,
)  # color spaces
PREMULTIPLIED, STRAIGHT = 1, 2  # kinds of alpha in ExtraSamples
JPEG = 7  # tifffile converts its YCbCr to RGB

BANDS = (
    "its {} bands, or gray pages, are not the colors of an RGB image: INPUT.FORMAT BANDS "
    "(image_format) reads them all; else save three bands, or one page, as a file of their own"
)
RANGE = (
    "pixels of the kind {}{} have no fixed range; save the image in 8 or 16 bits, with one range "
    "for all images"
)


class TiffPicture(ImageFile):
    """A TIFF image with the interface of Pillow's images; upright once it is loaded.

    Attributes:
        refused: why it cannot be an RGB image, or "".
        content: the bands of the file.
        maximum: the highest value that its integers can have; 65535 for more than 16 bits.
        tag_v2: the orientation and the stored size, as Pillow's TIFF images have them.
    """

    format = "TIFF"

    def _open(self) -> None:
        assert self.fp is not None
        self.name = os.fsdecode(self.filename)
        self.content = TiffBands(self.fp, self.name)
        self._size = self.content.size[::-1]
        first = self.content.first
        self.tag_v2 = {
            ORIENTATION: self.content.orientation,
            256: first.imagewidth,
            257: first.imagelength,
            262: int(first.photometric),
        }
        bits = first.bitspersample
        self.maximum = 2**bits - 1 if isinstance(bits, int) and bits <= 16 else 65535
        self._mode, self._loaded = "RGB", False  # the mode until it is loaded
        self.refused = self._refusal()

    def load(self) -> Any:
        """Decode the pixels.

        Raises:
            RefusedImageError: it is refused, or its integers have no fixed range.
        """
        if not self._loaded:
            if self.refused:
                raise RefusedImageError(f"{self.name}: {self.refused}")
            decoded = self.decoded(self.content.read())
            self._mode, self.im, self.palette = decoded.mode, decoded.im, decoded.palette
            self._loaded = True
        return Image.Image.load(self)

    def _refusal(self) -> str:
        first, bands = self.content.first, self.content.bands
        alpha = bool({PREMULTIPLIED, STRAIGHT} & set(first.extrasamples))
        if first.dtype is None or first.dtype.kind not in "bui":
            return RANGE.format(first.dtype, "")
        if not isinstance(first.bitspersample, int):
            return f"its bands have different depths: {first.bitspersample} bits"
        if first.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO):
            pages = len(self.content.pages) > 1
            return BANDS.format(bands) if pages or bands > 4 or (bands == 2 and not alpha) else ""
        if first.photometric == PALETTE:
            return "" if first.bitspersample <= 8 else "it has a palette of more than 256 colors"
        plain = first.photometric in (RGB, CMYK)
        if plain or (first.photometric == YCBCR and first.compression == JPEG):
            return ""
        kind = getattr(first.photometric, "name", first.photometric)
        return f"colors of the kind {kind} are not read like this; save it as an RGB TIFF or PNG"

    def decoded(self, pixels: np.ndarray) -> Image.Image:
        """Convert stored values, (H, W, bands), to an image."""
        first, bands = self.content.first, pixels.shape[2]
        if first.photometric == PALETTE:
            return _with_palette(pixels[:, :, 0], first.colormap)
        if bands > 2:
            self._check_range(pixels)
            colors = eight_bit(pixels[:, :, : 4 if first.photometric == CMYK else 3], self.maximum)
            if first.photometric == CMYK:
                return Image.fromarray(colors, "CMYK")
            if PREMULTIPLIED in first.extrasamples[:1]:
                return _straight("RGBa", colors, eight_bit(pixels[:, :, 3:4], self.maximum))
            return Image.fromarray(colors)
        gray = pixels[:, :, 0]
        if first.photometric == WHITE_IS_ZERO:
            self._check_range(gray)
            gray = (self.maximum - gray.astype(np.int64)).astype(gray.dtype)
        if PREMULTIPLIED in first.extrasamples[:1]:
            self._check_range(pixels)
            return _straight(
                "La", *(eight_bit(pixels[:, :, i : i + 1], self.maximum) for i in (0, 1))
            )
        return _gray(gray)

    def _check_range(self, values: np.ndarray) -> None:
        low, high = values.min(), values.max()
        if low < 0 or high > self.maximum:
            raise RefusedImageError(
                f"{self.name}: {RANGE.format(values.dtype, f', here {low} to {high},')}"
            )


def eight_bit(values: np.ndarray, maximum: int) -> np.ndarray:
    """Scale integers of 0 ... ``maximum`` to 0 ... 255, rounded."""
    if maximum == 255:
        return values.astype(np.uint8)
    return ((values.astype(np.uint64) * 255 + maximum // 2) // maximum).astype(np.uint8)


def _gray(values: np.ndarray) -> Image.Image:
    """Return gray values in the mode of Pillow that holds them unchanged."""
    if values.dtype.kind == "b" or values.dtype == np.uint8:
        return Image.fromarray(values.astype(np.uint8))
    if values.dtype == np.uint16:
        return Image.fromarray(values.astype("<u2"))
    within = np.iinfo(np.int32).min <= values.min() and values.max() <= np.iinfo(np.int32).max
    return Image.fromarray(values.astype(np.int32 if within else np.float32))


def _with_palette(indices: np.ndarray, colors: np.ndarray) -> Image.Image:
    """Return a palette image; colors are (3, 256) of 16 bits, or 8 as some writers store them."""
    image = Image.fromarray(indices.astype(np.uint8)).convert("P")
    palette = colors >> 8 if colors.max() > 255 else colors
    image.putpalette(palette.T.astype(np.uint8).tobytes())
    return image


def _straight(mode: str, colors: np.ndarray, alpha: np.ndarray) -> Image.Image:
    """Divide premultiplied colors by their alpha."""
    height, width = alpha.shape[:2]
    data = np.concatenate([colors, alpha], axis=2).tobytes()
    return Image.frombytes(mode, (width, height), data).convert(mode.upper())
