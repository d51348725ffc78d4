"""The readers of ``swinv2_backbone.images.bands``, also for addresses that Detectron2 opens."""

from functools import partial

from detectron2.utils.file_io import PathManager

from swinv2_backbone.images import bands
from swinv2_backbone.images.bands import BAND_SUFFIXES, BANDS, as_picture, bands_of

__all__ = [
    "BANDS",
    "BAND_SUFFIXES",
    "as_picture",
    "bands_header",
    "bands_of",
    "header_of",
    "read_bands",
    "read_picture",
    "read_pixels",
]

bands_header = partial(bands.bands_header, opener=PathManager.open)
header_of = partial(bands.header_of, opener=PathManager.open)
read_bands = partial(bands.read_bands, opener=PathManager.open)
read_picture = partial(bands.read_picture, opener=PathManager.open)
read_pixels = partial(bands.read_pixels, opener=PathManager.open)
