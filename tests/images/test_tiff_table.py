"""TIFF files of many compressions, depths and layouts: right to the pixel, or clearly refused.

Pillow misreads several of them without an error. The truth is the array that tifffile wrote.
"""

from __future__ import annotations

import io
import itertools
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from swinv2_backbone.images.reading import image_header, image_size, read_image, read_labels
from swinv2_backbone.images.tiff import tiff_pixels

H, W = 21, 37
Y, X = np.mgrid[:H, :W]
BANDS = np.stack([Y * 12, X * 6, Y * 5 + X * 4, 250 - Y * 9, X * 3 + Y, Y + X * 2], -1).astype(
    np.uint8
)
COLORS = BANDS[:, :, :3]
LOSSLESS = ("lzw", "deflate", "packbits", "zstd", "lzma", "jpeg2000", "lerc", "jpegxl", "png")
BYTE_WISE = {None, "lzw", "deflate", "packbits", "zstd", "lzma"}  # with any dtype and byte order


def wide(values: np.ndarray) -> np.ndarray:
    """16-bit values whose rounded upper byte is ``values``."""
    return (values.astype(np.uint16) * 257 + values % 100).clip(max=65535)


def planes(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def gray(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2)


def write(path: Path, pixels: np.ndarray, **options: Any) -> None:
    tifffile.imwrite(path, pixels, **{"metadata": None, **options})


def differs(path: Path, truth: np.ndarray) -> int:
    """The largest difference between what is read and the truth, both RGB of 8 bits."""
    read = read_image(path, "RGB")
    assert image_size(path) == truth.shape[:2] == read.shape[:2] and not image_header(path).refused
    return int(np.abs(read.astype(int) - truth).max())


@pytest.mark.parametrize("compression", [None, *LOSSLESS])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("depth", [8, 16])
def test_colors_of_every_compression_and_layout_are_right(tmp_path, compression, planar, depth):
    pixels = COLORS if depth == 8 else wide(COLORS)
    pixels = pixels if planar == "contig" else planes(pixels)
    options = {"photometric": "rgb", "planarconfig": planar, "compression": compression}
    write(tmp_path / "a.tif", pixels, **options)
    # Pillow takes the upper byte of 16-bit colors, which is rounded down.
    assert differs(tmp_path / "a.tif", COLORS) <= (depth == 16)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_sixteen_bit_colors_band_after_band_are_right_in_strips_and_tiles(tmp_path, planar, tile):
    """Pillow alone is off by more than 200 for ``separate``."""
    pixels = wide(COLORS) if planar == "contig" else planes(wide(COLORS))
    write(tmp_path / "a.tif", pixels, photometric="rgb", planarconfig=planar, tile=tile)
    assert differs(tmp_path / "a.tif", COLORS) <= 1
    with Image.open(tmp_path / "a.tif") as image:
        alone = np.abs(np.asarray(image.convert("RGB")).astype(int) - COLORS).max()
    assert (alone > 100) == (planar == "separate"), "Pillow has changed: see pillow_tiff.py"


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("depth", [8, 16])
def test_three_or_four_bands_without_a_color_space_are_rgb(
    tmp_path, byteorder, bands, planar, depth
):
    """Rasterio and GDAL write 16-bit bands so."""
    pixels = BANDS[:, :, :bands] if depth == 8 else wide(BANDS[:, :, :bands])
    write(
        tmp_path / "a.tif",
        pixels if planar == "contig" else planes(pixels),
        photometric="minisblack",
        planarconfig=planar,
        byteorder=byteorder,
        compression="deflate",
    )
    assert differs(tmp_path / "a.tif", COLORS) == 0
    assert np.array_equal(tiff_pixels(tmp_path / "a.tif"), pixels)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "lzw"])
@pytest.mark.parametrize("bands", [2, 5, 6])
def test_other_numbers_of_bands_are_refused_and_never_read_as_the_first(
    tmp_path, planar, compression, bands
):
    pixels = BANDS[:, :, :bands] if planar == "contig" else planes(BANDS[:, :, :bands])
    options = {"photometric": "minisblack", "planarconfig": planar, "compression": compression}
    write(tmp_path / "a.tif", pixels, **options)
    with pytest.raises(ValueError, match=rf"a.tif: its {bands} bands.*INPUT.FORMAT"):
        read_image(tmp_path / "a.tif", "RGB")
    assert f"its {bands} bands" in image_header(tmp_path / "a.tif").refused
    assert np.array_equal(tiff_pixels(tmp_path / "a.tif"), BANDS[:, :, :bands])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_gray_pages_are_bands(tmp_path, dtype):
    path = tmp_path / "a.tif"
    write(path, planes(BANDS[:, :, :3]).astype(dtype), photometric="minisblack")
    with pytest.raises(ValueError, match=r"a.tif: (its 3 bands, or gray pages|pixels of the kind)"):
        read_image(path, "RGB")
    if dtype != np.float32:
        with pytest.raises(ValueError, match="several gray pages"):
            read_labels(path)
    assert image_header(path).refused
    assert np.array_equal(tiff_pixels(path), BANDS[:, :, :3].astype(dtype))


def test_rows_written_as_pages_are_put_together(tmp_path):
    """tifffile writes (H, W, bands) as H pages of (W, bands) unless told otherwise."""
    pixels = wide(BANDS)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert len(file.pages) == H
    assert np.array_equal(tiff_pixels(tmp_path / "a.tif"), pixels)


def test_overviews_masks_and_pages_of_documents_are_no_bands(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:  # a GeoTIFF with overviews
        file.write(BANDS[:, :, 0], photometric="minisblack", metadata=None)
        file.write(BANDS[::2, ::2, 0], subfiletype=1, photometric="minisblack", metadata=None)
        file.write(BANDS[:, :, 1] > 9, subfiletype=4, photometric="mask", metadata=None)
    assert differs(path, gray(BANDS[:, :, 0])) == 0
    assert tiff_pixels(path).shape == (H, W, 1)
    black = BANDS[:, :, 0] > 100
    pages = [Image.fromarray(black), Image.fromarray(~black)]
    pages[0].save(path, save_all=True, append_images=pages[1:], compression="group4")
    assert differs(path, gray(black * 255)) == 0
    pages = [Image.fromarray(COLORS), Image.fromarray(COLORS[::-1].copy())]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert differs(path, COLORS) == 0


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_gray_of_every_depth_is_scaled_by_its_range(tmp_path, bits, photometric):
    highest = 2**bits - 1
    values = np.round(BANDS[:, :, 0] / 255 * highest).astype(np.uint8 if bits == 8 else np.uint16)
    stored = values if photometric == "minisblack" else highest - values
    write(tmp_path / "a.tif", stored, photometric=photometric, bitspersample=bits)
    assert differs(tmp_path / "a.tif", gray(BANDS[:, :, 0])) == 0


@pytest.mark.parametrize("compression", [None, "lzw"])
@pytest.mark.parametrize(
    "photometric,dtype",
    [
        ("minisblack", np.uint8),
        ("minisblack", np.uint16),
        ("miniswhite", np.uint8),
        ("miniswhite", np.uint16),
        ("palette", np.uint8),
    ],
)
def test_a_single_band_may_be_stored_as_one_of_several(tmp_path, photometric, compression, dtype):
    """Rasterio writes a band so with ``interleave="band"``: PlanarConfiguration 2."""
    values = BANDS[:, :, 0] if dtype == np.uint8 else wide(BANDS[:, :, 0])
    truth = gray(BANDS[:, :, 0])
    options: dict[str, Any] = {"photometric": photometric, "compression": compression}
    if photometric == "miniswhite":
        values = np.iinfo(dtype).max - values
    elif photometric == "palette":
        options["colormap"] = (
            np.random.default_rng(0).integers(0, 65536, (3, 256)).astype(np.uint16)
        )
        truth = (options["colormap"] >> 8).T[values].astype(int)
    write(tmp_path / "a.tif", values, **options)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        place = file.pages[0].tags["SamplesPerPixel"].offset  # which is 1, as without the tag
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[place : place + 2] = (284).to_bytes(2, "little")  # PlanarConfiguration
    content[place + 8 : place + 10] = (2).to_bytes(2, "little")
    (tmp_path / "a.tif").write_bytes(content)
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[284] == 2
    assert differs(tmp_path / "a.tif", truth) == 0


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_few_bits_are_spread_in_images_and_kept_in_labels(tmp_path, bits, photometric):
    values = BANDS[:, :, 0] >> (8 - bits)
    stored = values.astype(bool) if bits == 1 else values
    write(tmp_path / "a.tif", stored, photometric=photometric, bitspersample=bits)
    scaled = values * (255 // (2**bits - 1))
    black = photometric == "minisblack"
    assert differs(tmp_path / "a.tif", gray(scaled if black else 255 - scaled)) == 0
    if black:
        assert np.array_equal(read_labels(tmp_path / "a.tif"), values)
    else:
        with pytest.raises(ValueError, match="a.tif.*0 for white.*PNG"):
            read_labels(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["group3", "group4", "tiff_ccitt"])
def test_faxes_are_read(tmp_path, kind):
    black = BANDS[:, :, 0] > 100
    Image.fromarray(black).save(tmp_path / "a.tif", compression=kind)
    assert differs(tmp_path / "a.tif", gray(black * 255)) == 0


@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha", "unspecified"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "lzw"])
@pytest.mark.parametrize("depth", [8, 16])
def test_alpha_is_dropped_and_colors_multiplied_by_it_are_divided(
    tmp_path, extra, planar, compression, depth
):
    alpha = np.full((H, W, 1), 128, np.uint8)
    rgb = COLORS // 2 if extra == "assocalpha" else COLORS
    pixels = np.concatenate([rgb, alpha], axis=2)
    pixels = pixels if depth == 8 else pixels.astype(np.uint16) * 257
    pixels = pixels if planar == "contig" else planes(pixels)
    options = {"photometric": "rgb", "planarconfig": planar, "compression": compression}
    write(tmp_path / "a.tif", pixels, extrasamples=[extra], **options)
    assert differs(tmp_path / "a.tif", COLORS) <= (3 if extra == "assocalpha" else 0)


@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_gray_with_alpha_is_gray(tmp_path, extra, planar, compression):
    values = BANDS[:, :, :1] // 2 if extra == "assocalpha" else BANDS[:, :, :1]
    pixels = np.concatenate([values, np.full((H, W, 1), 128, np.uint8)], axis=2)
    pixels = pixels if planar == "contig" else planes(pixels)
    options = {"photometric": "minisblack", "planarconfig": planar, "compression": compression}
    write(tmp_path / "a.tif", pixels, extrasamples=[extra], **options)
    assert differs(tmp_path / "a.tif", gray(BANDS[:, :, 0])) <= (3 if extra == "assocalpha" else 0)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_inks_of_every_layout_become_colors(tmp_path, depth, planar):
    inks = np.ascontiguousarray(BANDS[:, :, :4])
    truth = np.asarray(Image.fromarray(inks, "CMYK").convert("RGB"))
    pixels = inks if depth == 8 else inks.astype(np.uint16) * 257
    pixels = pixels if planar == "contig" else planes(pixels)
    write(tmp_path / "a.tif", pixels, photometric="separated", planarconfig=planar)
    assert differs(tmp_path / "a.tif", truth) == 0


@pytest.mark.parametrize("compression", [None, "lzw", "zstd", "jpeg2000"])
@pytest.mark.parametrize("depth", [8, 16])
def test_palettes_of_8_and_16_bit_colors_are_read(tmp_path, compression, depth):
    palette = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    write(
        tmp_path / "a.tif",
        BANDS[:, :, 0],
        photometric="palette",
        colormap=palette * 257 if depth == 16 else palette,
        compression=compression,
    )
    assert differs(tmp_path / "a.tif", palette.T[BANDS[:, :, 0]].astype(int)) == 0
    assert np.array_equal(read_labels(tmp_path / "a.tif"), BANDS[:, :, 0])


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_jpeg_and_webp_in_a_tiff_are_read(tmp_path, photometric, planar, tile):
    color = np.array([[[200, 90, 30]]], np.uint8)
    stored = color if photometric == "rgb" else np.array(Image.fromarray(color).convert("YCbCr"))
    pixels = np.tile(stored, (32, 48, 1))
    options = {"photometric": photometric, "planarconfig": planar, "tile": tile}
    if planar == "separate":
        pixels = planes(pixels)
    for compression in ("jpeg", "webp"):
        if compression == "jpeg" and (planar, photometric) == ("separate", "ycbcr"):
            continue
        if compression == "webp" and (planar, photometric) != ("contig", "rgb"):
            continue
        write(tmp_path / "a.tif", pixels, compression=compression, **options)
        assert differs(tmp_path / "a.tif", np.tile(color, (32, 48, 1))) <= 3


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2)])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_luma_and_chroma_become_colors(tmp_path, subsampling, compression):
    converted = np.asarray(Image.fromarray(np.ascontiguousarray(COLORS)).convert("YCbCr"))
    options = {"photometric": "ycbcr", "compression": compression, "subsampling": (1, 1)}
    write(tmp_path / "a.tif", converted, **options)
    assert differs(tmp_path / "a.tif", COLORS) <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_by_both_readers(tmp_path, orientation):
    tag = [(274, 3, 1, orientation, True)]
    for name, pixels, planar in (
        ("pillow.tif", COLORS, "contig"),
        ("tifffile.tif", planes(COLORS.astype(np.uint16) * 257), "separate"),
    ):
        write(tmp_path / name, pixels, photometric="rgb", planarconfig=planar, extratags=tag)
    expected = read_image(tmp_path / "pillow.tif", "RGB")
    assert differs(tmp_path / "tifffile.tif", expected) == 0
    header = image_header(tmp_path / "tifffile.tif")
    assert header == image_header(tmp_path / "pillow.tif")
    assert header.turned == (orientation > 4) and expected.shape[:2] == image_size(
        tmp_path / "tifffile.tif"
    )
    assert tiff_pixels(tmp_path / "tifffile.tif").shape == expected.shape


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex64])
def test_floats_are_refused_by_the_header(tmp_path, bands, dtype):
    pixels = BANDS[:, :, 0] if bands == 1 else COLORS
    kind = "minisblack" if bands == 1 else "rgb"
    write(tmp_path / "a.tif", pixels.astype(dtype), photometric=kind)
    assert "no fixed range" in image_header(tmp_path / "a.tif").refused
    with pytest.raises(ValueError, match="a.tif.*no fixed range.*8 or 16 bits"):
        read_image(tmp_path / "a.tif", "RGB")
    assert tiff_pixels(tmp_path / "a.tif").dtype == dtype


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_negative_values_are_refused_and_others_scaled(tmp_path, dtype, bands, byteorder):
    pixels = (BANDS[:, :, 0] if bands == 1 else COLORS).astype(int) // 2
    kind = "minisblack" if bands == 1 else "rgb"
    options = {"photometric": kind, "byteorder": byteorder, "compression": "lzw"}
    write(tmp_path / "a.tif", pixels.astype(dtype), **options)
    scaled = pixels if dtype == np.int8 else (pixels + 128) // 257
    assert differs(tmp_path / "a.tif", gray(scaled) if bands == 1 else scaled) == 0
    pixels[0, 0] = -1
    write(tmp_path / "a.tif", pixels.astype(dtype), **options)
    with pytest.raises(ValueError, match="a.tif.*no fixed range"):
        read_image(tmp_path / "a.tif", "RGB")


def test_volumes_raw_camera_files_and_odd_color_spaces_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    write(path, planes(BANDS), photometric="minisblack", volumetric=True, tile=(6, 16, 16))
    with pytest.raises(OSError, match="volume of 6 slices"):
        read_image(path, "RGB")
    write(path, BANDS[:, :, 0], photometric="cfa")
    with pytest.raises(ValueError, match="colors of the kind CFA"):
        read_image(path, "RGB")
    preview = [(50706, 1, 4, bytes([1, 4, 0, 0]), True)]
    write(path, COLORS, photometric="rgb", subfiletype=1, extratags=preview)
    with pytest.raises(OSError, match="raw camera file: develop it"):
        read_image(path, "RGB")


@pytest.mark.parametrize("compression", [None, "lzw", "zstd", "jpeg"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")  # before its error
def test_a_file_cut_short_is_damaged_for_both_readers(tmp_path, compression):
    for planar in ("contig", "separate"):
        path = tmp_path / f"{planar}.tif"
        pixels = COLORS if planar == "contig" else planes(COLORS)
        options = {"photometric": "rgb", "planarconfig": planar, "compression": compression}
        write(path, pixels, rowsperstrip=8, **options)
        content = path.read_bytes()
        for length in (9, 60, len(content) // 2, int(len(content) * 0.9), len(content) - 1):
            path.write_bytes(content[:length])
            with pytest.raises(OSError, match=rf"{planar}\.tif is damaged"):
                tiff_pixels(path)
            if length < len(content) - 1:
                with pytest.raises(OSError, match=rf"{planar}\.tif is damaged"):
                    read_image(path, "RGB")


def test_pixels_beyond_pillows_limit_are_refused(tmp_path, monkeypatch):
    write(tmp_path / "a.tif", planes(wide(COLORS)), photometric="rgb", planarconfig="separate")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", H * W // 2 - 1)
    for read in (tiff_pixels, image_size):
        with pytest.raises(OSError, match="limit"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("absent", ["tifffile", "imagecodecs"])
def test_without_the_extra_the_message_names_it(tmp_path, monkeypatch, absent):
    path = tmp_path / "a.tif"
    write(
        path, planes(wide(COLORS)), photometric="rgb", planarconfig="separate", compression="zstd"
    )
    write(tmp_path / "ok.tif", COLORS, photometric="rgb", compression="lzw")
    options = {"photometric": "minisblack", "planarconfig": "contig", "compression": "zstd"}
    write(tmp_path / "wide.tif", wide(COLORS), **options)
    for name in [name for name in sys.modules if name.split(".")[0] in ("tifffile", absent)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, absent, None)  # the import fails
    for read in (lambda p: read_image(p, "RGB"), image_size):
        with pytest.raises(
            OSError, match=r"wide.tif is a TIFF.*pip install 'swinv2_backbone\[images\]'"
        ):
            read(tmp_path / "wide.tif")
    assert differs(tmp_path / "ok.tif", COLORS) == 0


def full_table() -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, Any]]]:
    """Pixels as stored, the truth, and the options to write them with."""
    axes = {
        "compression": [None, *LOSSLESS],
        "planarconfig": ["contig", "separate"],
        "dtype": [np.uint8, np.uint16, np.uint32, np.int16, np.int8],
        "photometric": ["rgb", "minisblack", "miniswhite"],
        "predictor": [False, True],
        "tile": [None, (16, 16)],
        "byteorder": ["<", ">"],
        "bigtiff": [False, True],
    }
    for values in itertools.product(*axes.values()):
        options = dict(zip(axes, values))
        dtype, kind, order = options.pop("dtype"), options["photometric"], options["byteorder"]
        if options["compression"] not in BYTE_WISE and (order == ">" or dtype == np.uint32):
            continue  # imagecodecs stores big-endian values swapped, and 32 bits with losses
        colors = kind == "rgb"
        if not colors and options["planarconfig"] == "separate":
            continue
        truth = COLORS if colors else gray(BANDS[:, :, 0])
        stored = COLORS if colors else BANDS[:, :, 0]
        if dtype == np.int8:
            stored, truth = (stored // 2).astype(dtype), truth // 2
        elif dtype == np.int16:
            stored, truth = stored.astype(dtype) * 120, (truth.astype(int) * 120 + 128) // 257
        elif dtype != np.uint8:
            stored = stored.astype(dtype) * 257
        if kind == "miniswhite":
            highest = 255 if stored.dtype.itemsize == 1 else 65535
            if dtype == np.int16:
                continue  # refused or not by the values
            stored = (highest - stored.astype(np.int64)).astype(dtype)
            if dtype == np.int8:
                continue
        if options["planarconfig"] == "separate":
            stored = planes(stored)
        yield stored, truth, options


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")  # before big-endian BigTIFF
def test_the_full_table_is_right(tmp_path):
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    wrong, count = [], 0
    for stored, truth, options in full_table():
        content = io.BytesIO()
        try:
            tifffile.imwrite(content, stored, metadata=None, **options)
        except (ValueError, NotImplementedError, RuntimeError, TypeError, KeyError):
            continue  # no such file
        (tmp_path / "a.tif").write_bytes(content.getvalue())
        count += 1
        try:
            off: object = differs(tmp_path / "a.tif", truth)
        except (OSError, ValueError) as error:
            off = error
        if off not in (0, 1):
            wrong.append((off, stored.dtype, options))
    assert not wrong and count > 1000, (count, len(wrong), wrong[:20])
