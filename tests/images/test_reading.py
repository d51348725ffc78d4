"""Images and labels of every file format, compared with the pixels that were saved."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, PngImagePlugin, TiffImagePlugin

from swinv2_backbone.images.reading import (
    image_header,
    image_size,
    read_image,
    read_labels,
    reads_plainly,
)

GRAY = np.arange(0, 240, 8, np.uint8).reshape(5, 6)
COLORS = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = value
    return exif


def gray_as_colors(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2)


def test_colors_come_in_the_order_asked_for(tmp_path):
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", "RGB"), COLORS)
    assert np.array_equal(read_image(str(tmp_path / "a.png"), "BGR"), COLORS[:, :, ::-1])
    with pytest.raises(ValueError, match="'L'"):
        read_image(tmp_path / "a.png", "L")


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "bmp"])
def test_lossless_formats_agree(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(COLORS).save(path, lossless=True)
    assert np.array_equal(read_image(path, "RGB"), COLORS)
    assert image_size(path) == (5, 6)


def test_gray_with_or_without_alpha_becomes_three_equal_channels(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "gray.png")
    alpha = Image.fromarray(np.full_like(GRAY, 9))
    Image.merge("LA", (Image.fromarray(GRAY), alpha)).save(tmp_path / "alpha.png")
    for name in ("gray.png", "alpha.png"):
        assert np.array_equal(read_image(tmp_path / name, "RGB"), gray_as_colors(GRAY))


def test_one_bit_becomes_black_and_white(tmp_path):
    bits = GRAY > 100
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", "RGB"), gray_as_colors(bits * 255))


def test_alpha_is_dropped_not_blended(tmp_path):
    rgba = np.dstack([COLORS, np.full(COLORS.shape[:2], 7, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", "RGB"), COLORS)


@pytest.mark.parametrize("transparency", [None, 1, bytes([0, 255, 7])])
@pytest.mark.filterwarnings("error")
def test_palettes_become_their_colors(tmp_path, transparency):
    palette = [10, 20, 30, 200, 100, 0, 5, 5, 250]
    indices = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette(palette)
    image.save(
        tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency})
    )
    expected = np.array(palette, np.uint8).reshape(3, 3)[indices]
    assert np.array_equal(read_image(tmp_path / "a.png", "RGB"), expected)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_by_their_range(tmp_path, suffix):
    values = np.array([[0, 128, 129, 257], [256, 32768, 65407, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), values)
    expected = np.round(values / 65535 * 255).astype(np.uint8)
    assert expected.max() == 255
    read = read_image(tmp_path / f"a.{suffix}", "RGB")
    assert np.array_equal(read, gray_as_colors(expected))


def test_big_endian_and_wide_integers_are_scaled_alike(tmp_path):
    values = np.array([[0, 300, 40000, 65535]], np.int32)
    Image.fromarray(values).save(tmp_path / "wide.tif")
    Image.fromarray(values.astype(">u2")).save(tmp_path / "big.tif")
    with Image.open(tmp_path / "wide.tif") as wide, Image.open(tmp_path / "big.tif") as big:
        assert (wide.mode, big.mode) == ("I", "I;16B")
    expected = gray_as_colors(np.array([[0, 1, 156, 255]]))
    for name in ("wide.tif", "big.tif"):
        assert np.array_equal(read_image(tmp_path / name, "BGR"), expected)


@pytest.mark.parametrize(
    "values", [np.array([[0.0, 0.5]], np.float32), np.array([[0, 65536]], np.int32)]
)
def test_pixels_of_unknown_range_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="a.tif.*no fixed range.*8 or 16 bits"):
        read_image(tmp_path / "a.tif", "RGB")


def test_inks_become_colors(tmp_path):
    inks = np.zeros((4, 5, 4), np.uint8)
    inks[:2, :, 0] = 255  # cyan: no red; below, paper white
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.tif")
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.jpg", quality=100)  # stored inverted
    expected = np.full((4, 5, 3), 255)
    expected[:2, :, 0] = 0
    for name in ("a.tif", "a.jpg"):
        assert np.abs(read_image(tmp_path / name, "RGB").astype(int) - expected).max() <= 6


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_pictures_are_turned_as_their_exif_says(tmp_path, suffix, value):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(COLORS).save(path, exif=orientation(value), lossless=True)
    rotations = {3: 2, 6: 3, 8: 1}  # quarter turns, counter-clockwise
    expected = {
        1: COLORS,
        2: COLORS[:, ::-1],
        4: COLORS[::-1],
        5: COLORS.transpose(1, 0, 2),
        7: COLORS[::-1, ::-1].transpose(1, 0, 2),
    }.get(value)
    if expected is None:
        expected = np.rot90(COLORS, rotations[value])
    assert np.array_equal(read_image(path, "RGB"), expected)
    assert image_size(path) == expected.shape[:2]
    assert image_header(path).turned == (value > 4)


def test_a_turned_jpeg_has_the_size_of_the_turned_picture(tmp_path):
    Image.fromarray(np.zeros((16, 32, 3), np.uint8)).save(tmp_path / "a.jpg", exif=orientation(6))
    assert image_size(tmp_path / "a.jpg") == (32, 16)
    assert read_image(tmp_path / "a.jpg", "RGB").shape == (32, 16, 3)


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def test_exif_behind_the_pixels_of_a_png_counts(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(COLORS).save(path)
    content = path.read_bytes()
    exif = orientation(6).tobytes().removeprefix(b"Exif\0\0")
    path.write_bytes(content[:-12] + chunk(b"eXIf", exif) + content[-12:])
    assert np.array_equal(read_image(path, "RGB"), np.rot90(COLORS, 3))
    assert image_size(path) == (6, 5)


def test_the_size_is_known_without_decoding(tmp_path, monkeypatch):
    for name in ("a.png", "a.jpg", "a.tif"):
        Image.fromarray(COLORS).save(tmp_path / name)
    decoded = []
    for kind in (PngImagePlugin.PngImageFile, TiffImagePlugin.TiffImageFile, ImageFile.ImageFile):
        monkeypatch.setattr(kind, "load", lambda image: decoded.append(image.format))
    assert {image_size(tmp_path / name) for name in ("a.png", "a.jpg", "a.tif")} == {(5, 6)}
    assert decoded == []


def test_a_picture_with_broken_exif_is_read_unturned(tmp_path):
    Image.fromarray(COLORS).save(tmp_path / "a.webp", exif=b"Exif\0\0nonsense", lossless=True)
    assert np.array_equal(read_image(tmp_path / "a.webp", "RGB"), COLORS)
    assert image_size(tmp_path / "a.webp") == (5, 6)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "gif"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")  # before its error
def test_damaged_files_are_named_wherever_they_end(tmp_path, suffix):
    noise = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    whole = tmp_path / f"whole.{suffix}"
    Image.fromarray(noise).save(whole)
    content = whole.read_bytes()
    path = tmp_path / f"cut.{suffix}"
    for length in (0, 1, 9, 30, 60, len(content) // 2, int(len(content) * 0.9)):
        path.write_bytes(content[:length])
        with pytest.raises(OSError, match=rf"cut\.{suffix}"):
            read_image(path, "RGB")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "gif", "bmp"])
@pytest.mark.filterwarnings("ignore")  # Pillow warns of much that it can read
def test_any_damage_is_an_oserror_with_the_name_or_goes_unnoticed(tmp_path, suffix):
    rng = np.random.default_rng(2)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(COLORS).save(path, exif=orientation(6))
    content = np.frombuffer(path.read_bytes(), np.uint8)
    refused = 0
    for _ in range(50):
        damaged = content.copy()
        damaged[rng.integers(0, len(content), 4)] = rng.integers(0, 256, 4)
        path.write_bytes(damaged.tobytes())
        for read in (lambda p: read_image(p, "RGB"), image_size, read_labels):
            try:
                read(path)
            except OSError as error:
                refused += str(path) in str(error)
                assert str(path) in str(error)
            except ValueError as error:
                assert str(path) in str(error)
    assert refused


def test_missing_files_and_folders_are_named(tmp_path):
    for read in (image_size, read_labels):
        with pytest.raises(FileNotFoundError, match="nowhere.png"):
            read(tmp_path / "nowhere.png")
    with pytest.raises(OSError, match=tmp_path.name):
        image_size(tmp_path)


def test_labels_are_the_values_of_gray_and_the_indices_of_palettes(tmp_path):
    labels = np.array([[0, 1, 2], [3, 255, 150]], np.uint8)
    Image.fromarray(labels).save(tmp_path / "gray.png")
    palette = Image.fromarray(labels).convert("P")
    palette.putpalette(np.random.default_rng(3).integers(0, 256, 768, np.uint8).tobytes())
    palette.save(tmp_path / "palette.png")
    cv2.imwrite(str(tmp_path / "sixteen.png"), labels.astype(np.uint16))
    for name in ("gray.png", "palette.png", "sixteen.png"):
        read = read_labels(tmp_path / name)
        assert np.array_equal(read, labels) and read.dtype == np.uint8


def test_class_numbers_beyond_255_are_kept(tmp_path):
    labels = np.array([[0, 300], [65535, 256]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), labels)
    read = read_labels(tmp_path / "a.png")
    assert np.array_equal(read, labels) and read.dtype == np.int32


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("kind", ["L", "P"])
def test_labels_of_few_bits_are_not_spread_over_the_range(tmp_path, bits, kind):
    labels = np.arange(2**bits, dtype=np.uint8)[None].repeat(2, axis=0)
    path = tmp_path / "a.png"
    if kind == "P":
        Image.fromarray(labels).convert("P").save(path, bits=bits)
    elif bits == 1:
        Image.fromarray(labels == 1).save(path)
    else:
        Image.fromarray(labels * (255 // (2**bits - 1))).save(path, bits=bits)
    assert path.read_bytes()[24] == bits  # the bit depth in the header
    assert np.array_equal(read_labels(path), labels)
    with Image.open(path) as image:
        assert reads_plainly(path) == np.array_equal(np.array(image, dtype=int), labels)


def test_labels_turn_with_their_picture(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "a.png", exif=orientation(6))
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "a.png"))
    assert np.array_equal(read_labels(tmp_path / "a.png"), np.asarray(expected))
    assert not reads_plainly(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colors_are_no_labels(tmp_path: Path, mode):
    Image.new(mode, (4, 3)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=f"a.png.*one class number per pixel.*{mode}$"):
        read_labels(tmp_path / "a.png")
