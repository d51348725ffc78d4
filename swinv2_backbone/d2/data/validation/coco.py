"""The check of a whole COCO-format file and its images, before training.

Detectron2 finds some of these faults hours later, and some never.
"""

from __future__ import annotations

from collections.abc import Mapping

from swinv2_backbone.d2.data.validation.annotations import UNKNOWN_IMAGE, AnnotationChecker
from swinv2_backbone.d2.data.validation.categories import check_categories
from swinv2_backbone.d2.data.validation.columns import columns_of
from swinv2_backbone.d2.data.validation.crowds import check_crowds
from swinv2_backbone.d2.data.validation.forms import check_forms
from swinv2_backbone.d2.data.validation.ids import numbered, without_copies
from swinv2_backbone.d2.data.validation.images import check_images
from swinv2_backbone.d2.data.validation.report import Fault, Report

NOTHING_TO_LEARN = Fault("no annotation to train on", "add annotations that are not crowds")
LOST_IMAGES = Fault(
    "annotations of images that the list lacks, most of this file",
    "check the image ids: a split may have numbered the images anew, or images and annotations are "
    "of different sets; if a split only left the other images out, remove these annotations",
)


def check_coco(
    content: dict,
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
        bands: number of bands that each image must have; None: RGB images.
        crowds: "check" or "ignore" as for ``check_crowds``; "objects" to read each crowd as an
            object, which needs ``mask_format`` "bitmask".
        holes: "fill", as in COCO, or "subtract" polygons inside polygons; the latter also needs
            "bitmask".

    Returns:
        The repaired content, usable only if the report has no errors, and the report. ``content``
        is not changed; it is returned itself if nothing was repaired.
    """
    report = Report(json_file)
    entries = content["annotations"]
    images = check_images(
        content["images"], images_folder, report, outside=images_outside, bands=bands
    )
    used = {one.get("category_id") for one in entries if _has_category(one)}
    categories = check_categories(content["categories"], used, report)
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
    checked = [checker.check(*item) for item in enumerate(entries)]
    columns = columns_of(entries, checked, checker)
    check_crowds(report, columns.category, columns.iscrowd, columns.form, names, mode=crowds)
    check_forms(report, columns, masks=masks)
    kept = [annotation for annotation in checked if annotation is not None]
    _check_number(kept, len(checked), checker)
    kept = without_copies(kept, report)
    # pycocotools treats an object with id 0 as one that was not detected.
    kept = numbered(kept, report, lowest=1 if for_evaluation else 0)
    if not report.repaired:
        return content, report
    return content | {"images": images, "annotations": kept, "categories": categories}, report


def _has_category(annotation: object) -> bool:
    return isinstance(annotation, dict) and isinstance(
        annotation.get("category_id"), (int, float, str)
    )


def _check_number(kept: list[dict], total: int, checker: AnnotationChecker) -> None:
    """Report if too few annotations are left, and why."""
    report = checker.report
    lost = report.repaired.get(UNKNOWN_IMAGE)
    if lost and (lost.count == total or lost.count > total / 2 and _consecutive(checker.images)):
        report.errors[LOST_IMAGES] = report.repaired.pop(UNKNOWN_IMAGE)
    only_crowds = all(annotation.get("iscrowd") for annotation in kept)
    if not checker.for_evaluation and only_crowds and (not total or not report.errors):
        report.error(NOTHING_TO_LEARN, f"{len(kept)} of {total} are usable")


def _consecutive(images: Mapping) -> bool:
    """Return True if ids count from 0 or 1, as those of a split do that was numbered anew."""
    return set(images) in ({*range(len(images))}, {*range(1, len(images) + 1)})
