"""The fast reader of headers agrees with Pillow, or leaves the file to it."""

from __future__ import annotations

import pytest
from PIL import Image, PngImagePlugin

from swinv2_backbone.images.headers import plain_header
from swinv2_backbone.images.reading import image_header

PLAIN = {
    "gray.jpg": ("L", {}),
    "color.jpg": ("RGB", {}),
    "progressive.jpg": ("RGB", {"progressive": True}),
    "profile.jpg": ("RGB", {"icc_profile": b"x" * 300, "comment": b"hello"}),
    "one.png": ("1", {}),
    "gray.png": ("L", {}),
    "palette.png": ("P", {}),
    "deep.png": ("I;16", {}),
    "alpha.png": ("RGBA", {"dpi": (72, 72)}),
}


def saved(path, mode="RGB", size=(37, 21), **options):
    Image.new(mode, size).save(path, **options)
    return path


def with_orientation(value):
    exif = Image.Exif()
    exif[274] = value
    return exif


@pytest.mark.parametrize("name", PLAIN)
def test_plain_files_are_read(tmp_path, name):
    mode, options = PLAIN[name]
    path = saved(tmp_path / name, mode, **options)
    assert plain_header(path) == image_header(path) == (21, 37, False, "")


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png"])
def test_an_orientation_is_left_to_pillow(tmp_path, name):
    path = saved(tmp_path / name, exif=with_orientation(6))
    assert plain_header(path) is None
    assert image_header(path) == (37, 21, True, "")


def test_an_orientation_behind_the_pixels_is_left_to_pillow(tmp_path):
    path = saved(tmp_path / "photo.png", exif=with_orientation(6))
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    path.write_bytes(data[:start] + data[end:-12] + data[start:end] + data[-12:])
    assert plain_header(path) is None
    assert image_header(path) == (37, 21, True, "")


def test_text_is_left_to_pillow(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "any")
    assert plain_header(saved(tmp_path / "text.png", pnginfo=text)) is None


@pytest.mark.parametrize("name", ["a.bmp", "a.gif", "a.webp", "a.tif"])
def test_other_formats_are_left_to_pillow(tmp_path, name):
    assert plain_header(saved(tmp_path / name)) is None


def test_cmyk_is_left_to_pillow(tmp_path):
    assert plain_header(saved(tmp_path / "a.jpg", "CMYK")) is None


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_no_beginning_of_a_file_is_taken_for_sound(tmp_path, name):
    """A PNG is read to its last chunk; a JPEG up to its pixels, as by Pillow."""
    data = saved(tmp_path / name, size=(300, 200)).read_bytes()
    least = data.index(b"IEND") if name == "a.png" else data.index(b"\xff\xda")
    path = tmp_path / f"cut_{name}"
    for length in [*range(0, least, 7), least - 1]:
        path.write_bytes(data[:length])
        assert plain_header(path) is None


def test_missing_files_and_folders_are_left_to_pillow(tmp_path):
    assert plain_header(tmp_path / "absent.jpg") is None
    assert plain_header(tmp_path) is None


def test_a_bomb_is_left_to_pillow(tmp_path):
    path = saved(tmp_path / "a.png")
    data = bytearray(path.read_bytes())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    path.write_bytes(data)
    assert plain_header(path) is None
