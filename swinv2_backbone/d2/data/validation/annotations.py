"""The annotations of a COCO-format file, checked one by one and repaired in copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

from swinv2_backbone.d2.data.validation.boxes import (
    CLIPPED,
    EMPTY_BOX,
    NEW_BOX,
    clipped,
    is_finite,
)
from swinv2_backbone.d2.data.validation.ids import KnownIds
from swinv2_backbone.d2.data.validation.masks import mask_area, mask_box, usable
from swinv2_backbone.d2.data.validation.polygons import in_coco_form, with_holes
from swinv2_backbone.d2.data.validation.report import Fault, FaultError, Report

INCOMPLETE = Fault("entries with missing or invalid values", "complete or remove them")
UNKNOWN_IMAGE = Fault(
    "annotations of images that are not listed, as a split of the image list alone leaves them",
    "dropped",
)
UNKNOWN_CATEGORY = Fault(
    "annotations with an unknown category_id",
    "add the category, or remove them; check whether the ids count from 0 in one list and from 1 "
    "in the other",
)
REFERENCE = Fault(
    "image_id or category_id of another type than the id (text, float or name)",
    "replaced by the id",
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
NEW_AREA = Fault(
    "annotations without an area, or with one of 0", "computed from the mask, or else the box"
)
OBJECTS = Fault("crowds (iscrowd 1)", "read as single objects, with masks as bitmaps")
HOLES = Fault(
    "masks with polygons inside polygons, which COCO's form fills",
    "if they are holes: DATASETS.CUSTOM.HOLES subtract (holes='subtract' of register_coco)",
)
HOLES_CUT = Fault("masks with polygons inside polygons", "read as holes, masks as bitmaps")
BAD_KEYPOINTS = Fault("keypoints that are not [x, y, visibility, ...]", "dropped")
HOLE_MODES = ("fill", "subtract")
REFERENCES = {"image_id": object, "category_id": object}


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
        images: the entries of the usable images by id; no annotation is kept of one without a
            height and a width.
        categories: the class names by category id.
        masks, mask_format, for_evaluation, crowds, holes: as for ``check_coco``.
    """

    def __init__(
        self,
        report: Report,
        images: Mapping[int | str, dict],
        categories: Mapping[int, str],
        *,
        masks: bool,
        mask_format: str,
        for_evaluation: bool,
        crowds: str = "check",
        holes: str = "fill",
    ):
        self.report, self.images, self.categories = report, images, categories
        self.image_ids = KnownIds(images)
        names = list(categories.values())
        unique = {name: key for key, name in categories.items() if names.count(name) == 1}
        self.category_ids = KnownIds(categories, unique)
        self.masks, self.for_evaluation = masks, for_evaluation
        self.only_polygons = masks and mask_format == "polygon" and not for_evaluation
        self.crowds, self.holes = crowds, holes

    def check(self, number: int, annotation: object) -> dict | None:
        """Return an annotation, repaired if necessary; None if it is faulty or dropped."""
        if not is_complete(annotation, "annotations", number, REFERENCES, self.report):
            return None
        name = f"annotation {annotation.get('id', f'number {number}')}"
        changes: dict = {}
        image_id = self.image_ids.find(annotation["image_id"])
        if image_id is None:
            words = f"{name} (image_id {annotation['image_id']!r:.40})"
            self.report.repair(UNKNOWN_IMAGE, words)
            return None
        category_id = self.category_ids.find(annotation["category_id"])
        if category_id is None:
            words = f"{name} (category_id {annotation['category_id']!r:.40})"
            self.report.error(UNKNOWN_CATEGORY, words)
        for key, found in (("image_id", image_id), ("category_id", category_id)):
            given = annotation[key]
            if found is not None and (type(given) is not type(found) or given != found):
                self.report.repair(REFERENCE, f"{name} ({key} {given!r:.40}, now {found!r})")
                changes[key] = found
        image = self.images[image_id]
        if not (image["height"] and image["width"]):
            return None
        result = self._repaired(annotation, image, f"{name} in {image['file_name']}", changes)
        return None if category_id is None else result

    def _repaired(self, annotation: dict, image: dict, name: str, changes: dict) -> dict | None:
        size = (image["height"], image["width"])
        keep = True
        parts = (self._flags, self._form, self._box, self._mask, self._keypoints)
        for part in parts:  # all, to find every fault
            try:
                current = annotation | changes if changes else annotation
                keep = part(current, size, name, changes) and keep
            except FaultError as error:
                detail = f" ({error.detail})" if error.detail else ""
                self.report.error(error.fault, name + detail)
                keep = False
        if not keep:
            return None
        area = annotation.get("area")
        if self.for_evaluation and not (is_finite(area) and area > 0):
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
        elif crowd and self.crowds == "objects":
            changes["iscrowd"] = 0
            self.report.repair(OBJECTS, name)
        return True

    def _form(self, annotation: dict, size: tuple[int, int], name: str, changes: dict) -> bool:
        mask, fault = in_coco_form(annotation.get("segmentation"))
        if fault:
            changes["segmentation"] = mask
            self.report.repair(fault, name)
        return True

    def _box(self, annotation: dict, size: tuple[int, int], name: str, changes: dict) -> bool:
        box = annotation.get("bbox")
        if box is None or box == []:
            box = _box_of_mask(annotation.get("segmentation"), size)
            if box is None:
                raise FaultError(INCOMPLETE, "has no bbox, and no mask to compute it from")
            self.report.repair(NEW_BOX, name)
            changes["bbox"] = box
            return True
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
        if left is not mask:
            self.report.repair(SHORT if left or not needed else EMPTY_MASK, name)
            # Also an empty list: Detectron2 would drop the box with the short polygons.
            changes["segmentation"] = left
        if self.masks and isinstance(left, list) and len(left) > 1:
            self._holes(left, size, name, changes)
        return bool(left) or not needed

    def _keypoints(self, annotation: dict, size: tuple[int, int], name: str, changes: dict) -> bool:
        points = annotation.get("keypoints")
        usable = isinstance(points, list) and len(points) % 3 == 0 and all(map(is_finite, points))
        if points and not usable:
            changes["keypoints"] = []
            self.report.repair(BAD_KEYPOINTS, name)
        return True

    def _holes(self, polygons: list, size: tuple[int, int], name: str, changes: dict) -> None:
        mask = with_holes(polygons, *size)
        if mask is None:
            return
        if self.holes == "subtract":
            changes["segmentation"] = mask
            self.report.repair(HOLES_CUT, name)
        else:
            self.report.note(HOLES, name)


def _box_of_mask(mask: object, size: tuple[int, int]) -> list[float] | None:
    """Return the box of a mask within its image; None if there is no usable mask."""
    if not mask:
        return None
    try:
        left = usable(mask, *size)
        return clipped(mask_box(left), *size) if left else None
    except FaultError:  # reported by the check of the mask
        return None


def _area(annotation: dict, size: tuple[int, int]) -> float:
    mask, box = annotation.get("segmentation"), annotation["bbox"]
    return mask_area(mask, *size) if mask else float(box[2] * box[3])
