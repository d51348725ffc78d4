"""The images of a COCO-format file: their ids, names and sizes, compared with the files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from swinv2_backbone.d2.data.loading.bands import header_of
from swinv2_backbone.d2.data.validation.annotations import is_complete
from swinv2_backbone.d2.data.validation.file_names import FileNames
from swinv2_backbone.d2.data.validation.ids import uniform, whole
from swinv2_backbone.d2.data.validation.report import Fault, Report, for_each
from swinv2_backbone.images.headers import Header
from swinv2_backbone.images.kinds import UnsupportedImageError

NO_IMAGES = Fault("no images", "list the images under 'images'")
NO_FOLDER = Fault("no image folder", "give the folder that the file names are relative to")
IMAGE_ID_TWICE = Fault("duplicate image ids", "give every image an id of its own")
NO_NUMBER = Fault(
    "image ids that are neither texts nor whole numbers below 2^63",
    "number the images, also in the annotations",
)
MIXED_IDS = Fault("image ids of which some are numbers, some strings", "make all of them numbers")
FILE_TWICE = Fault("image files listed twice", "list each once, with all its annotations")
OUTSIDE = Fault(
    "image files outside the image folder, without one file of that name inside it",
    "correct their names; if you trust the file, allow it with DATASETS.CUSTOM.IMAGES_OUTSIDE True "
    "(images_outside of register_coco)",
)
MISSING_FILE = Fault("missing image files", "add them, or correct the image folder")
UNREADABLE = Fault("image files that are damaged, or not images", "replace or remove them")
UNSUPPORTED = Fault("image files of a kind that is not read", "do as each message says")
REFUSED = Fault(
    "images whose pixels are not as INPUT.FORMAT (image_format) wants them",
    "convert them, or correct INPUT.FORMAT and MODEL.PIXEL_MEAN (pixel_mean)",
)
TURNED = Fault(
    "images whose height and width were noted before their EXIF rotation",
    "images are rotated when they are read: exchange height and width in the file and rotate boxes "
    "and masks, or remove the EXIF orientation from the images",
)
OTHER_SIZE = Fault(
    "images of another size (height x width) than the file states",
    "correct height and width, or the images",
)
NEW_SIZE = Fault("images without a valid height and width", "taken from the image files")

_Read = Callable[[str], Header | OSError | None]  # file name -> header; None: not to be read


def check_images(
    entries: list, folder: str, report: Report, *, outside: bool, bands: int | None = None
) -> list[dict]:
    """Check the images of a file.

    Args:
        entries: the list "images".
        folder: the folder that the file names are relative to.
        report: takes the findings.
        outside: file names may lead out of the folder.
        bands: the number of bands that each image must have; None: RGB images of any kind.

    Returns:
        The usable entries with unique ids, repaired in copies. ``height`` and ``width`` are None if
        neither the entry nor an image file has them.
    """
    kinds = {"id": (int, float, str), "file_name": str}
    complete = [
        entry for n, entry in enumerate(entries) if is_complete(entry, "images", n, kinds, report)
    ]
    ids = uniform([entry["id"] for entry in complete], report, "images")
    images: dict = {}
    for key, entry in zip(ids, complete):
        if whole(key) is None and not isinstance(key, str):
            report.error(NO_NUMBER, f"{key!r:.40} ({entry['file_name']})")
            continue
        if key in images:
            report.error(IMAGE_ID_TWICE, f"{key} ({entry['file_name']})")
        same = type(key) is type(entry["id"])
        images.setdefault(key, entry if same else entry | {"id": key})
    if len({type(key) for key in images}) > 1:
        report.error(MIXED_IDS, f"{min(images, key=str)!r} and {max(images, key=str)!r}")
    if not entries:
        report.error(NO_IMAGES, "the list is empty")
    read = partial(_header, folder, outside=outside, bands=bands)
    found = _check_files(list(images.values()), folder, report, read)
    for name in repeated(_plain(entry["file_name"]) for entry in found):
        report.error(FILE_TWICE, name)
    return found


def _plain(name: str) -> str:
    """Return a file name without "./" and "//", which lead to the same file."""
    return os.path.normpath(name) if "./" in name or "//" in name else name


def unread(error: OSError) -> Fault:
    """Return the fault of an unreadable image file, which may be sound but unsupported."""
    return UNSUPPORTED if isinstance(error, UnsupportedImageError) else UNREADABLE


def repeated(values: Iterable) -> list:
    """Return the values that occur more than once."""
    return [value for value, count in Counter(values).items() if count > 1]


def _check_files(entries: list[dict], folder: str, report: Report, read: _Read) -> list[dict]:
    """Return the entries with names of existing files, and the sizes of these."""
    if not Path(folder).is_dir():
        report.error(NO_FOLDER, f"{folder!r}")
        return [_sized(entry, None, report) for entry in entries]
    headers: list[Header | OSError | None] = for_each(
        lambda entry: read(entry["file_name"]), entries, "images"
    )
    names = FileNames(folder, [entry["file_name"] for entry in entries])
    result = []
    for entry, header in zip(entries, headers):
        name = entry["file_name"]
        if header is None or isinstance(header, FileNotFoundError):
            if other := names.find(name, report):
                entry = entry | {"file_name": other}
                header = read(other)
            else:
                report.error(OUTSIDE if header is None else MISSING_FILE, name)
        if isinstance(header, OSError) and not isinstance(header, FileNotFoundError):
            report.error(unread(header), f"{header}")
        if isinstance(header, Header) and header.refused:
            report.error(REFUSED, f"{name}: {header.refused}")
        result.append(_sized(entry, header if isinstance(header, Header) else None, report))
    return result


def _header(folder: str, name: str, *, outside: bool, bands: int | None) -> Header | OSError | None:
    """Return the header of an image; None if its name leads out of the folder and must not."""
    if not outside and _leads_outside(name):
        return None
    try:
        return header_of(os.path.join(folder, name), bands)
    except OSError as error:
        return error
    except ValueError as error:  # a null character in the name
        return FileNotFoundError(str(error))


def _leads_outside(name: str) -> bool:
    """Return True if a file name leads out of the folder; links inside it are allowed."""
    if os.path.isabs(name) or os.path.splitdrive(name)[0]:
        return True
    return os.pardir in name and os.path.normpath(name).split(os.sep)[0] == os.pardir


def _sized(entry: dict, header: Header | None, report: Report) -> dict:
    """Return an entry with a valid size, compared with the header of its file."""
    stated = [whole(entry.get(key)) for key in ("height", "width")]
    stated = [value if value and value > 0 else None for value in stated]
    name = entry["file_name"]
    if header and None in stated:
        stated = [header.height, header.width]
    elif header and stated != (actual := [header.height, header.width]):
        fault = TURNED if header.turned and stated == actual[::-1] else OTHER_SIZE
        report.error(fault, f"{name} ({stated[0]}x{stated[1]}, is {actual[0]}x{actual[1]})")
    given = [entry.get("height"), entry.get("width")]
    if given == stated and all(type(value) is int for value in given):
        return entry
    if None not in stated:
        report.repair(NEW_SIZE, f"{name} ({given[0]!r:.20} x {given[1]!r:.20})")
    return entry | {"height": stated[0], "width": stated[1]}
