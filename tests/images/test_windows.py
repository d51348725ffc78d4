"""Windows of pictures have the pixels of the whole picture, for every kind of file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from swinv2_backbone.images import tiff_windows
from swinv2_backbone.images.bands import read_bands
from swinv2_backbone.images.kinds import DamagedImageError, UnsupportedImageError
from swinv2_backbone.images.reading import read_image
from swinv2_backbone.images.tiff_windows import Window
from swinv2_backbone.images.windows import open_windows

H, W = 75, 90
RNG = np.random.default_rng(0)
Y, X = np.mgrid[:H, :W]
SMOOTH = np.stack([Y * 3, X * 2, Y + X, 255 - Y * 2, X + 7, Y // 2 + X], -1).astype(np.uint8)
COLORS = SMOOTH[:, :, :3]
WINDOWS = [
    Window(0, 0, W, H),
    Window(0, 0, 40, 33),
    Window(31, 17, 72, 60),
    Window(50, 40, W, H),
    Window(16, 32, 17, 33),
]


def planes(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def write(path: Path, pixels: np.ndarray, **options: Any) -> None:
    tifffile.imwrite(path, pixels, **{"metadata": None, **options})


def check(path: Path, image_format: str = "RGB", whole: bool = False) -> None:
    """Compare every window with the whole picture."""
    bands = image_format == "BANDS"
    truth = read_bands(path) if bands else read_image(path, image_format)
    with open_windows(path, image_format) as picture:
        assert (picture.height, picture.width) == truth.shape[:2] and picture.whole == whole
        for window in WINDOWS:
            left, top, right, bottom = (
                min(at, end) for at, end in zip(window, truth.shape[1::-1] * 2)
            )
            expected = truth[top:bottom, left:right]
            found = picture.read(Window(left, top, right, bottom))
            assert found.dtype == truth.dtype
            np.testing.assert_array_equal(found, expected)


TIFFS = {
    "strips": (COLORS, {"photometric": "rgb"}),
    "compressed strips": (COLORS, {"photometric": "rgb", "compression": "lzw", "rowsperstrip": 7}),
    "tiles": (COLORS, {"photometric": "rgb", "tile": (32, 16)}),
    "predictor": (
        COLORS,
        {"photometric": "rgb", "tile": (16, 16), "compression": "deflate", "predictor": 2},
    ),
    "jpeg": (COLORS, {"photometric": "ycbcr", "tile": (32, 32), "compression": "jpeg"}),
    "planes": (planes(COLORS), {"photometric": "rgb", "planarconfig": 2, "tile": (16, 32)}),
    "raw planes": (planes(COLORS), {"photometric": "rgb", "planarconfig": 2}),
    "big": (COLORS, {"photometric": "rgb", "tile": (16, 16), "bigtiff": True}),
    "big-endian 16 bits": (
        COLORS.astype(np.uint16) * 257,
        {"photometric": "rgb", "byteorder": ">", "compression": "lzw"},
    ),
    "16-bit planes": (
        planes(COLORS.astype(np.uint16) * 250),
        {"photometric": "rgb", "planarconfig": 2, "compression": "zstd", "tile": (16, 16)},
    ),
    "gray": (COLORS[:, :, 0], {"tile": (16, 16)}),
    "inverted gray": (COLORS[:, :, 0], {"photometric": "miniswhite", "compression": "lzw"}),
    "16-bit gray": (COLORS[:, :, 0].astype(np.uint16) * 200, {"compression": "deflate"}),
    "alpha": (
        SMOOTH[:, :, :4],
        {"photometric": "rgb", "extrasamples": ["unassalpha"], "tile": (16, 16)},
    ),
    "premultiplied": (
        SMOOTH[:, :, :4] // 3,
        {"photometric": "rgb", "extrasamples": ["assocalpha"], "tile": (16, 16)},
    ),
    "infrared": (SMOOTH[:, :, :4], {"photometric": "rgb", "tile": (16, 16)}),
    "cmyk": (SMOOTH[:, :, :4], {"photometric": "separated", "tile": (16, 16)}),
    "palette": (
        COLORS[:, :, 0],
        {
            "photometric": "palette",
            "colormap": RNG.integers(0, 65536, (3, 256)).astype(np.uint16),
            "tile": (16, 16),
        },
    ),
}


@pytest.mark.parametrize("kind", TIFFS)
def test_windows_of_a_tiff_are_parts_of_the_whole(tmp_path, kind):
    pixels, options = TIFFS[kind]
    write(tmp_path / "a.tif", pixels, **options)
    check(tmp_path / "a.tif")


@pytest.mark.parametrize("layout", ["strips", "predictor", "raw planes"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_windows_of_a_turned_tiff_are_upright(tmp_path, layout, orientation):
    pixels, options = TIFFS[layout]
    write(tmp_path / "a.tif", pixels, extratags=[(274, 3, 1, orientation, True)], **options)
    check(tmp_path / "a.tif")
    check(tmp_path / "a.tif", "BANDS")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".jp2"])
def test_windows_of_other_kinds_are_parts_of_the_whole(tmp_path, suffix):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(COLORS).save(
        tmp_path / f"a{suffix}", **({} if suffix == ".jp2" else {"exif": exif})
    )
    check(tmp_path / f"a{suffix}", "BGR", whole=True)


def test_windows_of_palettes_and_transparency_are_parts_of_the_whole(tmp_path):
    palette = Image.fromarray(COLORS).quantize(17)
    palette.save(tmp_path / "a.png", transparency=3)
    check(tmp_path / "a.png", whole=True)
    Image.fromarray(COLORS[:, :, 0].astype(np.uint16) * 200).save(tmp_path / "b.png")
    check(tmp_path / "b.png", whole=True)
    Image.fromarray(COLORS[:, :, 0] > 99).save(tmp_path / "c.tif", compression="group4")
    check(tmp_path / "c.tif", whole=True)


def test_windows_of_bands_are_parts_of_the_whole(tmp_path):
    write(tmp_path / "a.tif", SMOOTH.astype(np.uint16), photometric="minisblack", tile=(16, 16))
    write(tmp_path / "b.tif", planes(SMOOTH), photometric="minisblack", compression="lzw")
    np.save(tmp_path / "c.npy", SMOOTH.astype(np.float32))
    np.save(tmp_path / "d.npy", np.asfortranarray(SMOOTH))
    for name in ("a.tif", "b.tif", "c.npy", "d.npy"):
        check(tmp_path / name, "BANDS")
    np.save(tmp_path / "e.npy", planes(SMOOTH))
    with open_windows(tmp_path / "e.npy", "BANDS", 6) as picture:
        np.testing.assert_array_equal(picture.read(Window(5, 6, 20, 30)), SMOOTH[6:30, 5:20])


def test_segments_are_decoded_once_and_only_where_needed(tmp_path, monkeypatch):
    """Rows of windows decode each tile at most twice, also with the smallest memory."""
    write(tmp_path / "a.tif", COLORS, photometric="rgb", tile=(16, 16), compression="deflate")
    monkeypatch.setattr(tiff_windows, "CACHED", 0)
    decoded: list[int] = []
    original = tiff_windows.TiffWindows._decoded

    def counting(self, index: int, number: int) -> np.ndarray:
        if (index, number) not in self._cache:
            decoded.append(number)
        return original(self, index, number)

    monkeypatch.setattr(tiff_windows.TiffWindows, "_decoded", counting)
    with open_windows(tmp_path / "a.tif", "RGB") as picture:
        picture.read(Window(0, 0, 16, 16))
        assert decoded == [0]
        for left in range(0, 64, 8):
            picture.read(Window(left, 0, left + 24, 32))
    assert len(decoded) == len(set(decoded))


def test_pillows_limit_counts_only_for_pictures_that_are_decoded_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    write(tmp_path / "a.tif", COLORS, photometric="rgb", tile=(16, 16))
    with open_windows(tmp_path / "a.tif", "RGB") as picture:
        np.testing.assert_array_equal(picture.read(Window(0, 0, W, H)), COLORS)
    assert Image.MAX_IMAGE_PIXELS == 1000
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    monkeypatch.setattr("swinv2_backbone.images.windows.MOST_WHOLE", 1000)
    refused = pytest.raises(UnsupportedImageError, match="90 x 75 pixels, and a PNG .* tiled TIFF")
    with refused, open_windows(tmp_path / "a.png", "RGB"):
        pass


def test_a_cut_tiff_is_named(tmp_path):
    write(tmp_path / "a.tif", COLORS, photometric="rgb", tile=(16, 16))
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-3000])
    refused = pytest.raises(DamagedImageError, match=r"a\.tif is damaged")
    with refused, open_windows(tmp_path / "a.tif", "RGB") as picture:
        picture.read(Window(0, 0, 10, 10))
