"""The annotations of a COCO-format file: what is wrong with each, and what can be mended.

An annotation is never changed in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from math import inf

from swinv2_backbone.d2.data.validation.masks import FaultError, mask_area, usable
from swinv2_backbone.d2.data.validation.report import Fault, Report

# A box may reach beyond its image by so many pixels, which is rounding and left as it is.
ROUNDING = 0.05

INCOMPLETE = Fault("entries that lack what they need", "complete or remove them")
UNKNOWN_IMAGE = Fault("annotations of an unknown image_id", "add the image, or remove them")
UNKNOWN_CATEGORY = Fault(
    "annotations of an unknown category_id", "add the category, or remove them"
)
IGNORED = Fault("annotations with ignore, which Detectron2 refuses", "remove them")
BAD_CROWD = Fault("iscrowd other than 0 or 1", "set it to 0 or 1")
BAD_BOX = Fault("boxes that are not four finite numbers", "write them as [x, y, width, height]")
BOX_OUTSIDE = Fault("boxes entirely outside their image", "check that they are in its pixels")
NO_MASK = Fault(
    "annotations without a segmentation, where the model learns masks",
    "complete them, or train without masks: MODEL.MASK_ON False",
)
RLE_FOR_POLYGONS = Fault(
    "RLE masks, where polygons are expected", "set INPUT.MASK_FORMAT bitmask, which takes both"
)

CLIPPED = Fault("boxes partly outside their image", "clipped to it")
EMPTY_BOX = Fault("annotations whose box has no width or no height", "left out")
SHORT = Fault("segmentations with polygons of fewer than 3 points", "those polygons left out")
EMPTY_MASK = Fault("annotations of which no polygon is left", "left out")
UNUSED_MASK = Fault("faulty segmentations, which a model without masks does not need", "left out")
NEW_CROWD = Fault("annotations without iscrowd", "set to 0")
NEW_AREA = Fault("annotations without an area", "computed from the mask, or else the box")
NEW_ID = Fault("annotation ids missing, used twice or impossible", "given new numbers")


def complete(part: str, number: int, entry: object, kinds: dict, report: Report) -> bool:
    """Whether an entry of the file has every key of ``kinds``, of the kind said there."""
    place = f"{part}[{number}]"
    if not isinstance(entry, dict):
        report.error(INCOMPLETE, f"{place} is no object")
        return False
    absent = [key for key in kinds if entry.get(key) is None]
    wrong = [key for key in kinds if key not in absent and not isinstance(entry[key], kinds[key])]
    words = [f"no {key}" for key in absent]
    words += [f"the impossible {key} {entry[key]!r:.40}" for key in wrong]
    if words:
        report.error(INCOMPLETE, f"{place} (id {entry.get('id')}) has {' and '.join(words)}")
    return not words


class AnnotationChecker:
    """Checks one annotation after the other, against what is known of images and categories.

    Args:
        report: takes what is found.
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
        """The annotation, mended if need be; None if it is faulty or left out."""
        if not complete("annotations", number, annotation, self.kinds, self.report):
            return None
        name = f"annotation {annotation.get('id', f'number {number}')}"
        image = self.images.get(annotation["image_id"])
        if image is None:
            self.report.error(UNKNOWN_IMAGE, f"{name} (image_id {annotation['image_id']!r:.40})")
        if annotation["category_id"] not in self.categories:
            self.report.error(UNKNOWN_CATEGORY, f"{name} (category_id {annotation['category_id']})")
        if image is None:
            return None
        return self._mended(annotation, image, f"{name} in {image['file_name']}")

    def _mended(self, annotation: dict, image: dict, name: str) -> dict | None:
        size = (image["height"], image["width"])
        changes: dict = {}
        keep = True
        for part in (self._flags, self._box, self._mask):
            try:
                keep = part(annotation, size, name, changes) and keep
            except FaultError as error:
                detail = f" ({error.detail})" if error.detail else ""
                self.report.error(error.fault, name + detail)
                keep = False
        if not keep:
            return None
        if self.for_evaluation and not _finite(annotation.get("area")):
            self.report.mend(NEW_AREA, name)
            changes["area"] = _area(annotation | changes, size)
        return annotation | changes if changes else annotation

    def _flags(self, annotation: dict, size: tuple, name: str, changes: dict) -> bool:
        if annotation.get("ignore"):
            raise FaultError(IGNORED, f"ignore {annotation['ignore']!r:.20}")
        crowd = annotation.get("iscrowd", None if self.for_evaluation else 0)
        if crowd is None:
            changes["iscrowd"] = 0
            self.report.mend(NEW_CROWD, name)
        elif crowd not in (0, 1):
            raise FaultError(BAD_CROWD, f"{crowd!r:.20}")
        return True

    def _box(self, annotation: dict, size: tuple, name: str, changes: dict) -> bool:
        box = annotation["bbox"]
        if not (isinstance(box, list) and len(box) == 4 and all(map(_finite, box))):
            raise FaultError(BAD_BOX, f"{box!r:.60}")
        x, y, width, height = box
        if width <= 0 or height <= 0:
            self.report.mend(EMPTY_BOX, name)
            return False
        left, top, right, bottom = (
            max(x, 0),
            max(y, 0),
            min(x + width, size[1]),
            min(y + height, size[0]),
        )
        if right <= left or bottom <= top:
            raise FaultError(BOX_OUTSIDE, f"{box}")
        clipped = [left, top, right - left, bottom - top]
        if max(left - x, top - y, x + width - right, y + height - bottom) > ROUNDING:
            self.report.mend(CLIPPED, name)
            changes["bbox"] = clipped
        return True

    def _mask(self, annotation: dict, size: tuple, name: str, changes: dict) -> bool:
        mask, crowd = annotation.get("segmentation"), annotation.get("iscrowd")
        # Crowds are not trained on, but evaluated.
        wanted = self.masks and (self.for_evaluation or not crowd)
        if not mask:
            if wanted:
                raise FaultError(NO_MASK)
            return True
        try:
            left = usable(mask, *size)
        except FaultError:
            if self.masks:
                raise
            self.report.mend(UNUSED_MASK, name)
            changes["segmentation"] = []
            return True
        if self.only_polygons and isinstance(mask, dict) and not crowd:
            raise FaultError(RLE_FOR_POLYGONS)
        if left is mask:
            return True
        self.report.mend(SHORT if left or not wanted else EMPTY_MASK, name)
        changes["segmentation"] = left  # if that is none: Detectron2 would leave the box out too
        return bool(left) or not wanted


def numbered(annotations: list[dict], report: Report, *, lowest: int) -> list[dict]:
    """The annotations with distinct whole numbers from ``lowest`` on as ids, most kept."""
    seen: set[int] = set()
    replaced = []
    for position, annotation in enumerate(annotations):
        number = annotation.get("id")
        if isinstance(number, int) and number >= lowest and number not in seen:
            seen.add(number)
        else:
            replaced.append(position)
    if not replaced:
        return annotations
    result, following = list(annotations), max(seen, default=0) + 1
    for number, position in enumerate(replaced, following):
        report.mend(NEW_ID, f"{annotations[position].get('id')!r:.20} (now {number})")
        result[position] = annotations[position] | {"id": number}
    return result


def _area(annotation: dict, size: tuple[int, int]) -> float:
    mask, box = annotation.get("segmentation"), annotation["bbox"]
    return mask_area(mask, *size) if mask else float(box[2] * box[3])


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) < inf
