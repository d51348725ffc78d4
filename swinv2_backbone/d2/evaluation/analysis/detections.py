"""The ground truth and the detections of a COCO-format dataset, grouped by image."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from dataclasses import dataclass, field

from detectron2.data import MetadataCatalog
from pycocotools.coco import COCO


@dataclass
class Detections:
    """The ground truth of a dataset and the detections on it.

    Attributes:
        truth: the dataset, with its own category ids.
        found: the detections in COCO's result format, with the same ids.
        classes: names, in the order of the model's outputs.
        index: category id -> index in ``classes``.
    """

    truth: COCO
    found: list[dict]
    classes: list[str]
    index: dict[int, int]
    _found_by_image: dict[int, list[dict]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for one in self.found:
            self._found_by_image[one["image_id"]].append(one)

    def truth_of(self, image_id: int) -> list[dict]:
        return self.truth.imgToAnns.get(image_id, [])

    def found_in(self, image_id: int, confidence: float) -> list[dict]:
        """Return the detections of an image with at least this score."""
        found = self._found_by_image.get(image_id, [])
        return [one for one in found if one["score"] >= confidence]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the tasks that can be evaluated: "bbox", and "segm" if both sides have masks."""
        sides = (self.found, self.truth.dataset["annotations"])
        masks = all(side and all(one.get("segmentation") for one in side) for side in sides)
        return ("bbox", "segm") if masks else ("bbox",)


def load_detections(dataset: str, found: list[dict]) -> Detections:
    """Combine detections with the ground truth of a registered dataset.

    Raises:
        ValueError: the dataset is not in COCO format or has no annotations, or a detection has an
            image or category id that the dataset lacks.
    """
    metadata = MetadataCatalog.get(dataset)
    index = metadata.get("thing_dataset_id_to_contiguous_id")
    if not metadata.get("json_file") or not index:
        raise ValueError(f"the dataset {dataset!r} is not registered with a COCO-format JSON file")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(metadata.json_file)
    if not truth.dataset.get("annotations"):
        raise ValueError(f"{metadata.json_file} has no annotations to compare with")
    for key, known in (("image_id", truth.imgs), ("category_id", index)):
        unknown = {one[key] for one in found} - set(known)
        if unknown:
            raise ValueError(
                f"the predictions have {len(unknown)} {key}s that {metadata.json_file} lacks, "
                f"such as {min(unknown)}: they are predictions on another dataset; evaluate "
                "on this one, or choose with --dataset and --predictions"
            )
    return Detections(truth, found, list(metadata.thing_classes), dict(index))
