"""The check of a whole COCO-format file and its images, before training.

Detectron2 finds some of these faults hours later, and some never.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from swinv2_backbone.d2.data.validation.annotations import (
    UNKNOWN_CATEGORY,
    UNKNOWN_IMAGE,
    AnnotationChecker,
)
from swinv2_backbone.d2.data.validation.categories import TEXT_ID, check_categories
from swinv2_backbone.d2.data.validation.checked import CheckedAnnotations
from swinv2_backbone.d2.data.validation.crowds import check_crowds
from swinv2_backbone.d2.data.validation.forms import check_forms
from swinv2_backbone.d2.data.validation.images import NO_NUMBER, check_images
from swinv2_backbone.d2.data.validation.report import Fault, Report
from swinv2_backbone.d2.data.validation.source import InMemory, Source, used_categories

NOTHING_TO_LEARN = Fault("no annotation to train on", "add annotations that are not crowds")
LOST_IMAGES = Fault(
    "annotations of images that are not listed, which are most of this file",
    "check the image ids: a split may have renumbered the images, or images and annotations come "
    "from different sets; if a split only removed the other images, remove these annotations too",
)


class CheckedCoco(NamedTuple):
    """A file after the check: usable only if the report has no errors.

    Attributes:
        images, categories: entries of the lists, repaired.
        annotations: the annotations, which are repaired while they are read again.
        report: findings of the check.
    """

    images: list[dict]
    categories: list[dict]
    annotations: CheckedAnnotations
    report: Report


def check_coco(
    content: dict, json_file: str, images_folder: str, **options: Any
) -> tuple[dict, Report]:
    """Find the faults of a parsed file, and repair in a copy those with one obvious remedy.

    Args:
        content: the parsed file: lists under "images", "annotations" and "categories".
        json_file, images_folder, options: as for :func:`check_source`.

    Returns:
        The repaired content, usable only if the report has no errors, and the report. ``content``
        is not changed; it is returned itself if nothing was repaired.
    """
    found = check_source(InMemory(content), json_file, images_folder, **options)
    if not found.report.repaired:
        return content, found.report
    lists = {"images": found.images, "categories": found.categories}
    return content | lists | {"annotations": list(found.annotations)}, found.report


def check_source(
    source: Source,
    json_file: str,
    images_folder: str,
    *,
    masks: bool,
    mask_format: str,
    for_evaluation: bool,
    images_outside: bool = False,
    bands: int | None = None,
    crowds: str = "check",
    holes: str = "fill",
) -> CheckedCoco:
    """Find the faults of a file, and repair in a copy those with one obvious remedy.

    Args:
        source: the file.
        json_file: its name, for the report.
        images_folder: the folder that its file names are relative to.
        masks: the model is trained (or evaluated) on masks.
        mask_format: "polygon" or "bitmask", Detectron2's ``INPUT.MASK_FORMAT``.
        for_evaluation: the file is for evaluation, which needs ``area`` and ``iscrowd``.
        images_outside: file names may lead out of the folder (``/etc/...``, ``../...``).
        bands: number of bands that each image must have; None: RGB images.
        crowds: "check" or "ignore" as for ``check_crowds``; "objects" to read each crowd as an
            object, which needs ``mask_format`` "bitmask".
        holes: "fill", as in COCO, or "subtract" polygons inside polygons; the latter also needs
            "bitmask".
    """
    report = Report(json_file)
    images = check_images(
        source["images"], images_folder, report, outside=images_outside, bands=bands
    )
    categories = check_categories(source["categories"], used_categories(source), report)
    names = {entry["id"]: entry["name"] for entry in categories}
    checker = AnnotationChecker(
        report,
        {entry["id"]: entry for entry in images},
        names,
        masks=masks,
        mask_format=mask_format,
        for_evaluation=for_evaluation,
        crowds=crowds,
        holes=holes,
    )
    checked = CheckedAnnotations(source, checker)
    columns = checked.set_columns
    check_crowds(report, columns.category, columns.iscrowd, columns.form, names, mode=crowds)
    check_forms(report, columns, masks=masks)
    _check_number(checked)
    _drop_consequences(report)
    checked.drop_copies()
    # pycocotools treats an object with id 0 as one that was not detected.
    checked.number(lowest=1 if for_evaluation else 0)
    return CheckedCoco(images, categories, checked, report)


def _check_number(checked: CheckedAnnotations) -> None:
    """Report if too few annotations are left, and why."""
    report, total = checked.checker.report, checked.total
    lost = report.repaired.get(UNKNOWN_IMAGE)
    numbered_anew = _consecutive(checked.checker.images)
    if lost and (lost.count == total or lost.count > total / 2 and numbered_anew):
        report.errors[LOST_IMAGES] = report.repaired.pop(UNKNOWN_IMAGE)
    learns = checked.checker.for_evaluation or checked.has_objects()
    if not learns and (not total or not report.errors):
        kept = sum(map(len, checked.parts))
        report.error(NOTHING_TO_LEARN, f"{kept} of {total} are usable")


def _drop_consequences(report: Report) -> None:
    """Drop the findings that annotations refer to an entry whose invalid id is a finding itself."""
    if TEXT_ID in report.errors:
        report.errors.pop(UNKNOWN_CATEGORY, None)
    if NO_NUMBER in report.errors:
        report.errors.pop(LOST_IMAGES, None)
        report.repaired.pop(UNKNOWN_IMAGE, None)


def _consecutive(images: Mapping) -> bool:
    """Return True if ids count from 0 or 1, as those of a split do that was numbered anew."""
    return set(images) in ({*range(len(images))}, {*range(1, len(images) + 1)})
