"""The check of a whole COCO-format file and its images, before training.

Detectron2 finds some of these faults hours later, and some never.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from swinv2_backbone.d2.data.loading.images import Header, image_header
from swinv2_backbone.d2.data.validation.annotations import AnnotationChecker, is_complete
from swinv2_backbone.d2.data.validation.ids import numbered
from swinv2_backbone.d2.data.validation.report import Fault, Report, for_each

NO_CATEGORIES = Fault("no categories", "list the classes under 'categories'")
NO_IMAGES = Fault("no images", "list the images under 'images'")
NO_FOLDER = Fault("no image folder", "give the folder that the file names are relative to")
IMAGE_ID_TWICE = Fault("duplicate image ids", "give every image an id of its own")
MIXED_IDS = Fault("image ids of which some are numbers, some strings", "make all of them numbers")
FILE_TWICE = Fault("image files listed twice", "list each once, with all its annotations")
CATEGORY_TWICE = Fault("duplicate category ids or names", "give every class one id and one name")
OUTSIDE = Fault(
    "image files outside the image folder",
    "correct their names; if you trust the file, allow it with DATASETS.CUSTOM.IMAGES_OUTSIDE True "
    "(images_outside of register_coco)",
)
MISSING_FILE = Fault("missing image files", "add them, or correct the image folder")
UNREADABLE = Fault("image files that are damaged, or not images", "replace or remove them")
TURNED = Fault(
    "images whose height and width were noted before their EXIF rotation",
    "images are rotated when they are read: exchange height and width in the file and rotate boxes "
    "and masks, or remove the EXIF orientation from the images",
)
OTHER_SIZE = Fault(
    "images of another size (height x width) than the file states",
    "correct height and width, or the images",
)
NOTHING_TO_LEARN = Fault("no annotation to train on", "add annotations that are not crowds")


def check_coco(
    content: dict,
    json_file: str,
    images_folder: str,
    *,
    masks: bool,
    mask_format: str,
    for_evaluation: bool,
    images_outside: bool = False,
) -> tuple[dict, Report]:
    """Find the faults of a file, and repair in a copy those with one obvious remedy.

    Args:
        content: the parsed file: lists under "images", "annotations" and "categories".
        json_file: its name, for the report.
        images_folder: the folder that its file names are relative to.
        masks: the model is trained (or evaluated) on masks.
        mask_format: "polygon" or "bitmask", Detectron2's ``INPUT.MASK_FORMAT``.
        for_evaluation: the file is for evaluation, which needs ``area`` and ``iscrowd``.
        images_outside: file names may lead out of the folder (``/etc/...``, ``../...``).

    Returns:
        The repaired content, usable only if the report has no errors, and the report. ``content``
        is not changed; it is returned itself if nothing was repaired.
    """
    report = Report(json_file)
    images = _check_images(content["images"], report)
    categories = _check_categories(content["categories"], report)
    entries = list(images.values())
    if not images_outside:
        entries = [entry for entry in entries if not _leads_outside(entry["file_name"], report)]
    _check_files(entries, images_folder, report)
    checker = AnnotationChecker(
        report,
        images,
        categories,
        masks=masks,
        mask_format=mask_format,
        for_evaluation=for_evaluation,
    )
    kept = _check_annotations(content["annotations"], checker)
    return (content | {"annotations": kept} if report.repaired else content), report


def _check_images(entries: list, report: Report) -> dict[int | str, dict]:
    """Return the usable entries by id."""
    kinds = {"id": (int, str), "file_name": str, "height": int, "width": int}
    images: dict[int | str, dict] = {}
    for number, entry in enumerate(entries):
        if not is_complete(entry, "images", number, kinds, report):
            continue
        if entry["id"] in images:
            report.error(IMAGE_ID_TWICE, f"{entry['id']} ({entry['file_name']})")
        images.setdefault(entry["id"], entry)
    for name in _repeated(entry["file_name"] for entry in images.values()):
        report.error(FILE_TWICE, name)
    if len({type(key) for key in images}) > 1:
        report.error(MIXED_IDS, f"{min(images, key=str)!r} and {max(images, key=str)!r}")
    if not entries:
        report.error(NO_IMAGES, "the list is empty")
    return images


def _check_categories(entries: list, report: Report) -> set[int]:
    """Return the usable ids."""
    usable_entries = [
        entry
        for number, entry in enumerate(entries)
        if is_complete(entry, "categories", number, {"id": int, "name": str}, report)
    ]
    for key in ("id", "name"):
        for value in _repeated(entry[key] for entry in usable_entries):
            report.error(CATEGORY_TWICE, f"{key} {value}")
    if not entries:
        report.error(NO_CATEGORIES, "the list is empty")
    return {entry["id"] for entry in usable_entries}


def _check_annotations(entries: list, checker: AnnotationChecker) -> list[dict]:
    """Return the usable annotations, repaired and numbered."""
    report, for_evaluation = checker.report, checker.for_evaluation
    checked = [checker.check(*item) for item in enumerate(entries)]
    kept = [annotation for annotation in checked if annotation is not None]
    only_crowds = all(annotation.get("iscrowd") for annotation in kept)
    if not for_evaluation and only_crowds and (not checked or not report.errors):
        report.error(NOTHING_TO_LEARN, f"{len(kept)} of {len(checked)} are usable")
    # pycocotools treats an object with id 0 as one that was not detected.
    return numbered(kept, report, lowest=1 if for_evaluation else 0)


def _leads_outside(name: str, report: Report) -> bool:
    """Return True if a file name leads out of the folder; links inside it are allowed."""
    outside = Path(name).is_absolute() or os.path.normpath(name).split(os.sep)[0] == os.pardir
    if outside:
        report.error(OUTSIDE, name)
    return outside


def _check_files(entries: list[dict], folder: str, report: Report) -> None:
    """Compare the headers of all image files with the sizes in the file."""
    if not Path(folder).is_dir():
        report.error(NO_FOLDER, f"{folder!r}")
        return
    headers = for_each(lambda entry: _header(Path(folder, entry["file_name"])), entries, "images")
    for entry, header in zip(entries, headers):
        name, size = entry["file_name"], (entry["height"], entry["width"])
        if isinstance(header, FileNotFoundError):
            report.error(MISSING_FILE, f"{name}")
        elif isinstance(header, OSError):
            report.error(UNREADABLE, f"{header}")
        elif size != (found := (header.height, header.width)):
            fault = TURNED if header.turned and size == found[::-1] else OTHER_SIZE
            report.error(fault, f"{name} ({size[0]}x{size[1]}, is {found[0]}x{found[1]})")


def _header(path: Path) -> Header | OSError:
    try:
        return image_header(path)
    except OSError as error:
        return error


def _repeated(values: Iterable) -> list:
    return [value for value, count in Counter(values).items() if count > 1]
