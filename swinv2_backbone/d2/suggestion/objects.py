"""The sizes of a dataset's images and objects, read from its annotations alone.

Legend: I images, N objects. Sizes are (height, width) in pixels of the image files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from swinv2_backbone.d2.data.datasets.converted import coco_source_of
from swinv2_backbone.d2.data.formats.conversion import AUTO, format_of
from swinv2_backbone.d2.data.validation.boxes import clipped, is_finite
from swinv2_backbone.d2.data.validation.report import FaultError
from swinv2_backbone.d2.data.validation.source import Source, entries, open_coco


@dataclass(frozen=True)
class ObjectSizes:
    """The sizes of a dataset's images and objects; crowds are left out.

    Attributes:
        images: (I, 2) sizes of the images that have objects.
        image: (N,) row of the image of each object.
        boxes: (N, 2) sizes of the boxes.
        names: class names in the order of their ids.
        masks: number of objects with a polygon or RLE.
        rle: number of objects with RLE.
        empty: number of images without objects.
        skipped: number of annotations without a box in a listed image.
    """

    images: np.ndarray
    image: np.ndarray
    boxes: np.ndarray
    names: list[str]
    masks: int
    rle: int
    empty: int
    skipped: int

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def per_image(self) -> np.ndarray:
        """(I,) number of objects of each image."""
        return np.bincount(self.image, minlength=len(self.images))


def read_objects(json_file: str, images: str = "", format: str = AUTO) -> ObjectSizes:
    """Read the sizes of a dataset in any format of annotations; images are not opened.

    (Formats that do not state the sizes of images, such as YOLO, open them to convert the boxes.)

    Args:
        json_file, images, format: as for :func:`register_coco`.

    Raises:
        ValueError: the annotations cannot be read, or no object has a box in an image.
    """
    source = _source(json_file, images, format)
    sizes = dict(_image_sizes(source))
    image, boxes, kinds, skipped = [], [], Counter[str](), 0
    for entry in entries(source, "annotations"):
        if isinstance(entry, dict) and entry.get("iscrowd"):
            continue
        size = sizes.get(entry.get("image_id")) if isinstance(entry, dict) else None
        box = None if size is None else _box(entry, size)
        if box is None:
            skipped += 1
            continue
        image.append(entry["image_id"])
        boxes.append(box)
        kinds[_kind(entry.get("segmentation"))] += 1
    if not boxes:
        raise ValueError(
            f"{json_file}: none of its {skipped} annotations has a box in an image whose height "
            "and width are known: `swinv2 convert-dataset` or a training names the faults"
        )
    rows = {key: row for row, key in enumerate(dict.fromkeys(image))}
    return ObjectSizes(
        np.array([sizes[key] for key in rows], float),
        np.array([rows[key] for key in image]),
        np.array(boxes, float),
        _names(source),
        kinds["polygon"] + kinds["rle"],
        kinds["rle"],
        len(sizes) - len(rows),
        skipped,
    )


def _source(json_file: str, images: str, format: str) -> Source:
    file = Path(json_file)
    if file.is_file() and format_of(file, format) == "coco":
        return open_coco(json_file)  # the folder of the images is not needed
    return coco_source_of(json_file, images, format)


def _image_sizes(source: Source) -> Iterator[tuple[Any, tuple[float, float]]]:
    for entry in entries(source, "images"):
        if isinstance(entry, dict) and isinstance(entry.get("id"), (int, float, str)):
            height, width = entry.get("height"), entry.get("width")
            if is_finite(height) and is_finite(width) and min(height, width) > 0:
                yield entry["id"], (height, width)


def _box(entry: dict, size: tuple[float, float]) -> tuple[float, float] | None:
    """Return the height and width of an annotation's box within its image; None without one."""
    try:
        box = clipped(entry.get("bbox"), *(int(length) for length in size))
    except FaultError:
        return None
    return None if box is None else (box[3], box[2])


def _kind(segmentation: object) -> str:
    if isinstance(segmentation, dict):
        return "rle"
    return "polygon" if segmentation else "none"


def _names(source: Source) -> list[str]:
    found = [one for one in source["categories"] if isinstance(one, dict) and "id" in one]
    found.sort(key=lambda one: (isinstance(one["id"], str), one["id"]))
    return [str(one.get("name", one["id"])) for one in found]
