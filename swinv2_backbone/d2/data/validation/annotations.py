"""The annotations of a COCO-format file, checked one by one and repaired in copies."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TypeGuard

from swinv2_backbone.d2.data.validation.boxes import CLIPPED, EMPTY_BOX, clipped, is_finite
from swinv2_backbone.d2.data.validation.masks import mask_area, usable
from swinv2_backbone.d2.data.validation.report import Fault, FaultError, Report

INCOMPLETE = Fault("entries with missing or invalid values", "complete or remove them")
UNKNOWN_IMAGE = Fault("annotations with an unknown image_id", "add the image, or remove them")
UNKNOWN_CATEGORY = Fault(
    "annotations with an unknown category_id", "add the category, or remove them"
)
IGNORED = Fault("annotations with ignore, which Detectron2 refuses", "remove them")
BAD_CROWD = Fault("iscrowd other than 0 or 1", "set it to 0 or 1")
NO_MASK = Fault(
    "annotations without a segmentation, which a model with masks needs",
    "complete them, or train without masks: MODEL.MASK_ON False (masks=False of register_coco)",
)
RLE_FOR_POLYGONS = Fault(
    "RLE masks where polygons are expected",
    "set INPUT.MASK_FORMAT bitmask (mask_format='bitmask' of register_coco), which accepts both",
)

SHORT = Fault("segmentations with polygons of fewer than 3 points", "those polygons dropped")
EMPTY_MASK = Fault("annotations with no polygon left", "dropped")
UNUSED_MASK = Fault("faulty segmentations, which a model without masks does not use", "dropped")
NEW_CROWD = Fault("annotations without iscrowd", "set to 0")
NEW_AREA = Fault("annotations without an area", "computed from the mask, or else the box")


def is_complete(
    entry: object, part: str, number: int, kinds: Mapping, report: Report
) -> TypeGuard[dict]:
    """Return True if an entry of a file has a value of the right type for every key.

    Args:
        entry: the entry.
        part: the list that it comes from, such as "images".
        number: its position there.
        kinds: key -> type, or types.
        report: takes what is missing or invalid.
    """
    place = f"{part}[{number}]"
    if not isinstance(entry, dict):
        report.error(INCOMPLETE, f"{place} is not an object")
        return False
    absent = [key for key in kinds if entry.get(key) is None]
    wrong = [key for key in kinds if key not in absent and not isinstance(entry[key], kinds[key])]
    words = [f"no {key}" for key in absent]
    words += [f"an invalid {key} {entry[key]!r:.40}" for key in wrong]
    if words:
        report.error(INCOMPLETE, f"{place} (id {entry.get('id')}) has {' and '.join(words)}")
    return not words


class AnnotationChecker:
    """Checks annotations against the images and categories of their file.

    Annotations are never changed in place.

    Args:
        report: takes the findings.
        images: the entries of the usable images by id.
        categories: the ids of the usable categories.
        masks, mask_format, for_evaluation: as for ``check_coco``.
    """

    def __init__(
        self,
        report: Report,
        images: Mapping[int | str, dict],
        categories: Set[int],
        *,
        masks: bool,
        mask_format: str,
        for_evaluation: bool,
    ):
        self.report, self.images, self.categories = report, images, categories
        self.masks, self.for_evaluation = masks, for_evaluation
        self.only_polygons = masks and mask_format == "polygon" and not for_evaluation
        self.kinds = {"image_id": (int, str), "category_id": int, "bbox": object}

    def check(self, number: int, annotation: object) -> dict | None:
        """Return an annotation, repaired if necessary; None if it is faulty or dropped."""
        if not is_complete(annotation, "annotations", number, self.kinds, self.report):
            return None
        name = f"annotation {annotation.get('id', f'number {number}')}"
        image = self.images.get(annotation["image_id"])
        if image is None:
            self.report.error(UNKNOWN_IMAGE, f"{name} (image_id {annotation['image_id']!r:.40})")
        if annotation["category_id"] not in self.categories:
            self.report.error(UNKNOWN_CATEGORY, f"{name} (category_id {annotation['category_id']})")
        if image is None:
            return None
        return self._repaired(annotation, image, f"{name} in {image['file_name']}")

    def _repaired(self, annotation: dict, image: dict, name: str) -> dict | None:
        size = (image["height"], image["width"])
        changes: dict = {}
        keep = True
        for part in (self._flags, self._box, self._mask):  # all of them, to find every fault
            try:
                keep = part(annotation, size, name, changes) and keep
            except FaultError as error:
                detail = f" ({error.detail})" if error.detail else ""
                self.report.error(error.fault, name + detail)
                keep = False
        if not keep:
            return None
        if self.for_evaluation and not is_finite(annotation.get("area")):
            self.report.repair(NEW_AREA, name)
            changes["area"] = _area(annotation | changes, size)
        return annotation | changes if changes else annotation

    # Each of the following adds repairs to ``changes`` and returns True if the annotation is kept.

    def _flags(self, annotation: dict, size: tuple[int, int], name: str, changes: dict) -> bool:
        if annotation.get("ignore"):
            raise FaultError(IGNORED, f"ignore {annotation['ignore']!r:.20}")
        crowd = annotation.get("iscrowd", None if self.for_evaluation else 0)
        if crowd is None:
            changes["iscrowd"] = 0
            self.report.repair(NEW_CROWD, name)
        elif crowd not in (0, 1):
            raise FaultError(BAD_CROWD, f"{crowd!r:.20}")
        return True

    def _box(self, annotation: dict, size: tuple[int, int], name: str, changes: dict) -> bool:
        box = clipped(annotation["bbox"], *size)
        if box is None:
            self.report.repair(EMPTY_BOX, name)
            return False
        if box is not annotation["bbox"]:
            self.report.repair(CLIPPED, name)
            changes["bbox"] = box
        return True

    def _mask(self, annotation: dict, size: tuple[int, int], name: str, changes: dict) -> bool:
        mask, crowd = annotation.get("segmentation"), annotation.get("iscrowd")
        # Crowds are not trained on, but evaluated.
        needed = self.masks and (self.for_evaluation or not crowd)
        if not mask:
            if needed:
                raise FaultError(NO_MASK)
            return True
        try:
            left = usable(mask, *size)
        except FaultError:
            if self.masks:
                raise
            self.report.repair(UNUSED_MASK, name)
            changes["segmentation"] = []
            return True
        if self.only_polygons and isinstance(mask, dict) and not crowd:
            raise FaultError(RLE_FOR_POLYGONS)
        if left is mask:
            return True
        self.report.repair(SHORT if left or not needed else EMPTY_MASK, name)
        # Also an empty list: Detectron2 would drop the box with the short polygons.
        changes["segmentation"] = left
        return bool(left) or not needed


def _area(annotation: dict, size: tuple[int, int]) -> float:
    mask, box = annotation.get("segmentation"), annotation["bbox"]
    return mask_area(mask, *size) if mask else float(box[2] * box[3])
