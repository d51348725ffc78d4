"""The kinds of image files: which are read, and how to recognize and convert the others.

Training, checks, prediction, classification and pre-training share these lists.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

HEAD = 512  # bytes at the start of a file that tell its kind
EXAMPLES = 3  # files of one kind that are named
EXTRA = "pip install 'swinv2_backbone[images]'"

# Suffixes of images: HEIC needs the extra "images", and so do some TIFF files.
IMAGE_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp"),
)
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")


class DamagedImageError(OSError):
    """A file is damaged, or not an image."""

    def __init__(self, name: object, why: object):
        super().__init__(f"{name} is damaged, or not an image: {why}")


class UnsupportedImageError(OSError):
    """An image file is sound, but of a kind that is not read here; the message has the remedy."""


class RefusedImageError(ValueError):
    """A file is read, but its pixels are not those of an RGB image, or of a label image."""


class Kind(NamedTuple):
    """A kind of files that Pillow does not read.

    Attributes:
        name: name with its article.
        starts: bytes that such a file starts with.
        remedy: advice to the user.
        suffixes: suffixes that are enough to recognize it.
        offset: position of ``starts``.
    """

    name: str
    starts: tuple[bytes, ...]
    remedy: str
    suffixes: tuple[str, ...] = ()
    offset: int = 0


DEVELOP = "develop it to TIFF or PNG, for example with darktable-cli or rawpy"
NUMBERS = "convert it to TIFF or PNG of 8 or 16 bits, with a range that you choose"
BY_BANDS = f"INPUT.FORMAT BANDS (image_format) reads it; or {NUMBERS}"
CONVERT = "convert it to PNG"
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
HEIF = Kind("a HEIC image", tuple(b"ftyp" + brand for brand in HEIF_BRANDS), EXTRA, offset=4)
TIFF = Kind("a TIFF image", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), EXTRA)
CAMERA = ".arw .cr2 .cr3 .dng .nef .orf .raf .rw2 .srw .x3f"
KINDS = (
    HEIF,
    Kind("a raw camera file", (b"II*\0\x10\0\0\0CR",), DEVELOP, tuple(CAMERA.split())),
    Kind("a raw camera file", (b"FUJIFILMCCD", b"IIRO", b"IIRS", b"MMOR", b"IIU\0"), DEVELOP),
    Kind("a raw camera file", (b"ftypcrx",), DEVELOP, offset=4),
    TIFF,
    Kind(
        "an AVIF image",
        (b"ftypavif", b"ftypavis"),
        "install Pillow >= 11.3, whose wheels read AVIF",
        offset=4,
    ),
    Kind(
        "a JPEG XL image",
        (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"),
        "convert it to PNG, for example with djxl",
        (".jxl",),
    ),
    Kind("a JPEG XR image", (b"II\xbc",), CONVERT, (".jxr", ".wdp", ".hdp")),
    Kind("a JPEG-LS image", (b"\xff\xd8\xff\xf7",), CONVERT, (".jls",)),
    Kind("a DICOM file", (b"DICM",), NUMBERS + " (pydicom)", (".dcm", ".dicom"), offset=128),
    Kind("an OpenEXR image", (b"v/1\x01",), NUMBERS, (".exr",)),
    Kind("a Radiance HDR image", (b"#?RADIANCE", b"#?RGBE"), NUMBERS, (".hdr",)),
    Kind("a NumPy array", (b"\x93NUMPY",), BY_BANDS, (".npy", ".npz")),
    Kind("an HDF5 file", (b"\x89HDF\r\n\x1a\n",), NUMBERS, (".h5", ".hdf5", ".nc")),
    Kind("a NetCDF file", (b"CDF\x01", b"CDF\x02"), NUMBERS),
    Kind("a NIfTI volume", (b"n+1\0", b"ni1\0"), NUMBERS, (".nii", ".nii.gz"), offset=344),
    Kind("a FITS file", (b"SIMPLE  =",), NUMBERS, (".fits", ".fit")),
    Kind("an NRRD volume", (b"NRRD0",), NUMBERS, (".nrrd",)),
    Kind("a Photoshop document", (b"8BPS",), "export it as PNG", (".psd", ".psb")),
    Kind("a PDF document", (b"%PDF",), "extract its images", (".pdf",)),
    Kind("vector graphics", (b"<svg", b"%!PS"), "render them as PNG", (".svg", ".eps", ".ps")),
    Kind(
        "a web page", (b"<!DOCTYPE", b"<!doctype", b"<html", b"<HTML"), "download the image again"
    ),
    Kind("a pointer of Git LFS", (b"version https://git-lfs",), "run `git lfs pull`"),
    Kind("a video", (b"ftyp",), "extract its frames", (), offset=4),
)


def kind_of(head: bytes) -> Kind | None:
    """Return the kind of a file that Pillow does not read, by its first ``HEAD`` bytes."""
    for kind in KINDS:
        if head[kind.offset :].startswith(kind.starts):
            return kind
    return None


def kind_named(path: Path) -> Kind | None:
    """Return the unsupported kind that the suffix of a file tells; None for other suffixes."""
    name = path.name.lower()
    return next((kind for kind in KINDS if kind.suffixes and name.endswith(kind.suffixes)), None)


def is_image(path: Path) -> bool:
    """Return True if a file has a suffix of the supported images and is not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.name)


def described(passed_over: Iterable[Path]) -> list[str]:
    """Describe skipped files, one line per kind: count, examples, remedy."""
    groups: dict[tuple[str, str], list[str]] = {}
    for path in passed_over:
        groups.setdefault(_kind(path), []).append(path.name)
    lines = []
    for (name, remedy), names in sorted(groups.items(), key=lambda item: -len(item[1])):
        count = f" ({len(names)})" if len(names) > 1 else ""
        shown = ", ".join(names[:EXAMPLES]) + (", ..." if len(names) > EXAMPLES else "")
        lines.append(f"  {name}{count}: {shown}" + (f" -> {remedy}" if remedy else ""))
    return lines


def _kind(path: Path) -> tuple[str, str]:
    """Return the kind of a skipped file and the remedy, in words."""
    if path.is_dir():
        return "folders, whose files are not searched", "give them too"
    if path.name.startswith("."):
        return "hidden files", ""
    if kind := kind_named(path):
        return f"files of {path.suffix.lower()}, {kind.name}", kind.remedy
    return (f"files of {path.suffix.lower()}" if path.suffix else "files without a suffix"), ""


def visible_files(folder: str | Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, in a fixed order; links are followed.

    Hidden files and folders are left out, such as ``.ipynb_checkpoints`` with copies of images, and
    links to a folder that contains them.

    Raises:
        OSError: a folder cannot be read.
    """
    for where, folders, names in os.walk(str(folder), followlinks=True, onerror=_raise):
        shown = (one for one in folders if not is_hidden(one))
        folders[:] = sorted(one for one in shown if not _contains_itself(Path(where, one)))
        yield from (Path(where, name) for name in sorted(names) if not is_hidden(name))


def _contains_itself(folder: Path) -> bool:
    """Return True for a link to a folder that contains it, which would be walked without end."""
    return folder.is_symlink() and folder.resolve() in (folder.parent.resolve() / "_").parents


def _raise(error: OSError) -> None:
    raise error


def is_hidden(name: str) -> bool:
    """Return True for a hidden file or folder, such as macOS's ``._a.xml`` beside ``a.xml``."""
    return name.startswith(".")
