"""The published Satlas weights for satellite and aerial images: data with a citation, nothing else.

"SatlasPretrain: A Large-Scale Dataset for Remote Sensing Image Understanding", arXiv 2211.15660.
The Allen Institute for AI releases them under ODC-BY (DataLicense in
https://github.com/allenai/satlas; README of satlaspretrain_models 0.3.1), which asks to name it as
the source.  Addresses, bands and normalization: torchgeo 0.8.1, which hosts the files with their
hash in the name.

SI models were trained on single images, MI models on several of a place; both are used alike.
"""

from __future__ import annotations

from dataclasses import dataclass

URL = "https://hf.co/torchgeo/satlas/resolve/081d6607431bf36bdb59c223777cbb267131b8f2/"

_RGB = ("R", "G", "B")
_SENTINEL2_RGB = ("B04", "B03", "B02")
_SENTINEL2 = (*_SENTINEL2_RGB, "B05", "B06", "B07", "B08", "B11", "B12")
_LANDSAT = tuple(f"B{i:02}" for i in range(1, 12))
_SENTINEL1 = ("VH", "VV")
_8_BIT, _12_BIT = 255.0, 8160.0


@dataclass(frozen=True)
class Satlas:
    """One published file.

    Attributes:
        path: path below ``URL``; the name ends with 8 hexadecimal digits of the SHA-256.
        variant: the variant of its size and its windows.
        bands: the bands of its images, in order.
        mean, std: normalization of each band.
    """

    path: str
    variant: str
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def _satlas(
    name: str, digest: str, bands: tuple[str, ...], mean: float = 0.0, std: float = _8_BIT
) -> Satlas:
    size = {"swint": "tiny", "swinb": "base"}[name.split("_")[1]]
    deep = bands is _SENTINEL2  # 8 bits in the first three bands only
    stds = tuple(_12_BIT if deep and i >= 3 else std for i in range(len(bands)))
    means = (mean,) * len(bands)
    return Satlas(f"{name}-{digest}.pth", f"swinv2_{size}_window8_256", bands, means, stds)


_FILES = (
    _satlas("sentinel2_swint_mi_ms", "d8c659e3", _SENTINEL2),
    _satlas("sentinel2_swint_mi_rgb", "424d91f4", _SENTINEL2_RGB),
    _satlas("sentinel2_swint_si_ms", "bc68e396", _SENTINEL2),
    _satlas("sentinel2_swint_si_rgb", "0c1a96e0", _SENTINEL2_RGB),
    _satlas("sentinel2_swinb_mi_ms", "39c86721", _SENTINEL2),
    _satlas("sentinel2_swinb_mi_rgb", "4efa210c", _SENTINEL2_RGB),
    _satlas("sentinel2_swinb_si_ms", "fe22a12c", _SENTINEL2),
    _satlas("sentinel2_swinb_si_rgb", "156a98d5", _SENTINEL2_RGB),
    _satlas("aerial_swinb_mi", "326d69e1", _RGB),
    _satlas("aerial_swinb_si", "e4169eb1", _RGB),
    _satlas("landsat_swinb_mi", "6b4a1cda", _LANDSAT, 4000.0, 16320.0),
    _satlas("landsat_swinb_si", "4af978f6", _LANDSAT, 4000.0, 16320.0),
    _satlas("sentinel1_swinb_mi", "f6c43d97", _SENTINEL1),
    _satlas("sentinel1_swinb_si", "3981c153", _SENTINEL1),
)

# Name for swinv2:// -> its file.
SATLAS: dict[str, Satlas] = {f"satlas_{file.path.rpartition('-')[0]}": file for file in _FILES}
