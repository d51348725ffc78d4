"""The common form that readers of annotation formats fill in, and its COCO-format content.

Legend: H, W are the height and width of an image in pixels. A box is [x, y, width, height], a
polygon [x, y, x, y, ...], in pixels from the upper left corner of the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.data.validation.masks import mask_area
from swinv2_backbone.d2.data.validation.report import Finding, counted

NO_MASK = "objects with a box and no mask; a model with masks cannot learn from them"


@contextmanager
def located(place: object) -> Iterator[None]:
    """Name the place of an error about an entry whose type or value the format does not have.

    Raises:
        ValueError: instead of such an error.
    """
    try:
        yield
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        if str(place) in str(error):
            raise
        words = "" if isinstance(error, ValueError) else "an entry is not of the format: "
        words += "it has no " if isinstance(error, KeyError) else ""
        raise ValueError(f"{place}: {words}{error}") from error


class Source(NamedTuple):
    """Files to read annotations from.

    Attributes:
        path: annotation file or folder.
        images: folder of the images; None: the place where the format has them.
        subset: "train" or "val", for formats with several lists of images; "": all images, or the
            only list.
    """

    path: Path
    images: Path | None = None
    subset: str = ""


class Dataset:
    """Images and objects read from one format, with counts of everything that was left out.

    Args:
        images: folder that the file names are relative to.
        names: class names in their order; None: sorted names of all objects.

    Attributes:
        notes: sentences about decisions of the reader, for the user.
        left_out: description -> number and places of entries that are not in the content.
        first_pixel: whether boxes were counted from 0 or 1, in a format that has both.
    """

    def __init__(self, images: Path, names: Sequence[str] | None = None):
        self.images = images
        self.names = None if names is None else list(names)
        self.notes: list[str] = []
        self.left_out: dict[str, Finding] = {}
        self.kept: dict[str, Finding] = {}
        self.first_pixel: int | None = None
        self._images: list[dict[str, Any]] = []
        self._objects: list[tuple[str, dict[str, Any]]] = []

    def add_image(self, file_name: str, size: tuple[int, int] | None) -> dict[str, Any]:
        """Add an image and return its entry; ``size`` is (H, W), or None if unknown."""
        entry: dict[str, Any] = {"id": len(self._images) + 1, "file_name": file_name}
        if size is not None:
            entry |= {"height": size[0], "width": size[1]}
        self._images.append(entry)
        return entry

    def add_box(self, image: dict, name: str, box: Sequence[float], **more: Any) -> None:
        """Add an object without a mask."""
        self.remark(NO_MASK, f"{name} in {image['file_name']}")
        box = [_short(value) for value in box]
        self._add(image, name, {"bbox": box, "area": _short(box[2] * box[3])} | more)

    def add_polygons(
        self, image: dict, name: str, polygons: Sequence[Sequence[float]], **more: Any
    ) -> None:
        """Add an object whose mask is the union of polygons, each of at least 3 points."""
        parts = [[_short(value) for value in polygon] for polygon in polygons]
        points = np.concatenate([np.reshape(part, (-1, 2)) for part in parts])
        low, high = points.min(0), points.max(0)
        values = {"segmentation": parts, "bbox": [_short(v) for v in (*low, *(high - low))]}
        if "height" in image:
            values["area"] = mask_area(parts, image["height"], image["width"])
        self._add(image, name, values | more)

    def add_mask(self, image: dict, name: str, mask: np.ndarray, **more: Any) -> None:
        """Add an object with a mask (H, W), which is kept to the pixel; empty masks are left out.

        Raises:
            ValueError: the mask does not have the size of its image.
        """
        if mask.shape != (size := (image["height"], image["width"])):
            raise ValueError(
                f"{image['file_name']}: a mask of {name} is {mask.shape[0]}x{mask.shape[1]}, the "
                f"image is {size[0]}x{size[1]} (height x width)"
            )
        if not mask.any():
            self.leave_out("masks without a pixel", f"{name} in {image['file_name']}")
            return
        rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        values = {
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
            "bbox": [_short(value) for value in coco_mask.toBbox(rle)],
            "area": float(coco_mask.area(rle)),
        }
        self._add(image, name, values | more)

    def rasterized(self, image: dict, polygons: Sequence[Sequence[float]]) -> np.ndarray:
        """Rasterize polygons to a mask (H, W), as Detectron2 and COCO's evaluation do."""
        parts = [[float(value) for value in polygon] for polygon in polygons]
        rles = coco_mask.frPyObjects(parts, image["height"], image["width"])
        return coco_mask.decode(coco_mask.merge(rles)).astype(bool)

    def leave_out(self, what: str, place: str) -> None:
        """Count an entry of the source that is not in the content."""
        self.left_out.setdefault(what, Finding()).add(place)

    def remark(self, what: str, place: str) -> None:
        """Count an entry that is kept, but not as the user may expect."""
        self.kept.setdefault(what, Finding()).add(place)

    def content(self) -> dict[str, list]:
        """Return the dataset in COCO's format, with categories and images from id 1.

        Raises:
            ValueError: an object has a class that the format's list of classes lacks, or there are
                no classes.
        """
        found = sorted({name for name, _ in self._objects})
        names = found if self.names is None else self.names
        if not names:
            raise ValueError(
                self._nothing() if self.names is None else "its list of classes is empty"
            )
        ids = {name: number for number, name in enumerate(names, 1)}
        if unknown := [name for name in found if name not in ids]:
            raise ValueError(
                f"objects of the classes {', '.join(map(repr, unknown[:5]))} are not in the list "
                f"of classes: {', '.join(names)}"
            )
        return {
            "images": self._images,
            "annotations": [
                {"id": number, "category_id": ids[name]} | values
                for number, (name, values) in enumerate(self._objects, 1)
            ],
            "categories": [{"id": number, "name": name} for name, number in ids.items()],
        }

    def report(self) -> list[str]:
        """Return the notes and counts for the user, as lines."""
        lines = [f"kept: {finding.under(what)}" for what, finding in self.kept.items()]
        lines += [f"left out: {finding.under(what)}" for what, finding in self.left_out.items()]
        return [*self.notes, *lines]

    def _nothing(self) -> str:
        """Explain why there are no classes."""
        lines = "".join(f"\n  {line}" for line in self.report())
        return (
            f"no object was read in {counted(len(self._images), 'image')}, and this format names "
            "its classes in the objects alone: check that the annotations were exported, and are "
            f"not all of a kind that is left out{lines}"
        )

    def _add(self, image: dict, name: str, values: dict[str, Any]) -> None:
        self._objects.append((name, {"image_id": image["id"], "iscrowd": 0} | values))


def _short(value: float) -> float:
    """Round to a millionth of a pixel, as a plain number."""
    value = round(float(value), 6)
    return int(value) if value.is_integer() else value
