"""Kinds of image files beyond JPEG, PNG and TIFF: read, or named with what to do."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from swinv2_backbone.images.kinds import (
    IMAGE_SUFFIXES,
    KINDS,
    UnsupportedImageError,
    is_image,
    kind_of,
)
from swinv2_backbone.images.reading import image_header, image_size, read_image, read_labels

COLORS = np.kron(
    np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8), np.ones((16, 16, 1), np.uint8)
)
GRAY = {".pbm": "1", ".pgm": "L"}  # the mode that they hold; the others hold colors


@pytest.mark.parametrize("suffix", sorted(set(IMAGE_SUFFIXES) - set(GRAY)))
def test_every_kind_of_the_list_is_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix in (".heic", ".heif"):
        pillow_heif.from_pillow(Image.fromarray(COLORS)).save(path, quality=-1)
    else:
        Image.fromarray(COLORS).save(path, quality=95)
    assert image_size(path) == (48, 64)
    assert np.abs(read_image(path, "RGB").astype(int) - COLORS).mean() < 12
    assert is_image(path) and is_image(Path("A" + suffix.upper()))


@pytest.mark.parametrize("suffix,mode", GRAY.items())
def test_gray_kinds_of_the_list_are_read(tmp_path, suffix, mode):
    image = Image.fromarray(COLORS).convert(mode)
    image.save(tmp_path / f"a{suffix}")
    expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(read_image(tmp_path / f"a{suffix}", "RGB"), expected)


def test_a_turned_heic_image_is_turned_once(tmp_path):
    """The container states the rotation, as phones write it; the EXIF data state it again."""
    exif = Image.Exif()
    exif[274] = 6
    image = Image.fromarray(COLORS)
    image.info["exif"] = exif.tobytes()
    pillow_heif.register_heif_opener()
    image.save(tmp_path / "a.heic", quality=-1, exif=exif.tobytes())
    read = read_image(tmp_path / "a.heic", "RGB")
    assert image_size(tmp_path / "a.heic") == read.shape[:2] == (64, 48)
    assert np.abs(read.astype(int) - np.rot90(COLORS, 3)).mean() < 12


def test_without_the_extra_a_heic_image_names_it(tmp_path, monkeypatch):
    pillow_heif.from_pillow(Image.fromarray(COLORS)).save(tmp_path / "a.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # the import fails
    # As before the first HEIC image of a process.
    monkeypatch.setattr(Image, "ID", [kind for kind in Image.ID if kind != "HEIF"])
    for read in (lambda p: read_image(p, "RGB"), image_header, read_labels):
        with pytest.raises(
            UnsupportedImageError,
            match=r"a.heic is a HEIC image.*pip install 'swinv2_backbone\[images\]'$",
        ):
            read(tmp_path / "a.heic")


def npy() -> bytes:
    content = io.BytesIO()
    np.save(content, COLORS)
    return content.getvalue()


@pytest.mark.parametrize(
    "content,named",
    [
        (b"\xff\x0a\xfa\x1f" + bytes(20), "a JPEG XL image.*djxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), "a JPEG XL image.*djxl"),
        (bytes(128) + b"DICM" + bytes(20), "a DICOM file.*8 or 16 bits"),
        (b"v/1\x01" + bytes(20), "an OpenEXR image.*8 or 16 bits"),
        (npy(), "a NumPy array.*8 or 16 bits"),
        (b"\0\0\0\x18ftypcrx " + bytes(20), "a raw camera file.*develop"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(20), "a raw camera file.*develop"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(20), "a raw camera file.*develop"),
        (b"II\xbc\x01" + bytes(20), "a JPEG XR image.*convert"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "an HDF5 file.*8 or 16 bits"),
        (b"%PDF-1.7" + bytes(20), "a PDF document.*extract"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "vector graphics.*render"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "vector graphics"),
        (b"<!DOCTYPE html><html>404</html>", "a web page.*download"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS.*git lfs pull"),
        (b"\0\0\0\x20ftypisom" + bytes(20), "a video.*frames"),
    ],
)
def test_sound_files_of_other_kinds_are_not_called_damaged(tmp_path, content, named):
    path = tmp_path / "a.jpg"  # whatever its name
    path.write_bytes(content)
    for read in (lambda p: read_image(p, "RGB"), image_header, read_labels):
        with pytest.raises(UnsupportedImageError, match=f"a.jpg is {named}"):
            read(path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")  # before its error
def test_damaged_files_are_still_called_damaged(tmp_path):
    for content in (b"", b"nonsense", b"\xff\xd8\xff\xe0nonsense", b"II*\0nonsense"):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(OSError, match="a.jpg is damaged, or not an image"):
            read_image(tmp_path / "a.jpg", "RGB")


def test_each_kind_is_recognized_and_none_takes_what_is_read(tmp_path):
    for kind in KINDS:
        for start in kind.starts:
            found = kind_of(bytes(kind.offset) + start + bytes(8))
            assert found is not None and found.name in (kind.name, "a raw camera file")
        assert not set(kind.suffixes) & set(IMAGE_SUFFIXES) and kind.remedy
    for suffix in (".jpg", ".png", ".webp", ".bmp", ".gif", ".jp2", ".qoi", ".tga", ".ppm"):
        Image.fromarray(COLORS).save(tmp_path / f"a{suffix}")
        assert kind_of((tmp_path / f"a{suffix}").read_bytes()[:512]) is None
