"""Annotations of any known format, read as COCO-format content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from swinv2_backbone.d2.data.formats.coco import locate_coco, locate_roboflow
from swinv2_backbone.d2.data.formats.cvat import read_cvat
from swinv2_backbone.d2.data.formats.dataset import Dataset, Source
from swinv2_backbone.d2.data.formats.detect import detect
from swinv2_backbone.d2.data.formats.instances import read_instances
from swinv2_backbone.d2.data.formats.label_studio import read_label_studio
from swinv2_backbone.d2.data.formats.labelme import read_labelme
from swinv2_backbone.d2.data.formats.panoptic import read_panoptic
from swinv2_backbone.d2.data.formats.voc import read_voc, read_voc_from_one, read_voc_from_zero
from swinv2_backbone.d2.data.formats.voc_masks import read_voc_masks
from swinv2_backbone.d2.data.formats.yolo import read_yolo
from swinv2_backbone.d2.data.validation.report import Finding
from swinv2_backbone.d2.data.validation.source import open_coco

AUTO = "auto"


class Format(NamedTuple):
    """A format of annotations: what it is, and the function that reads it."""

    description: str
    read: Callable[[Source], Dataset]


FORMATS = {
    "yolo": Format("YOLO boxes or polygons: data.yaml or its folder", read_yolo),
    "voc": Format("Pascal VOC XML: a folder of files, or the one above Annotations", read_voc),
    "voc_from_one": Format("the same, with pixels counted from 1 as in VOC", read_voc_from_one),
    "voc_from_zero": Format("the same, with corners counted from 0", read_voc_from_zero),
    "voc_masks": Format("VOC's SegmentationObject and SegmentationClass", read_voc_masks),
    "labelme": Format("LabelMe: a folder of JSON files", read_labelme),
    "cvat": Format("CVAT for images 1.1: annotations.xml", read_cvat),
    "label_studio": Format("Label Studio: JSON or JSON-MIN", read_label_studio),
    "instances": Format("a folder of images of object numbers", read_instances),
    "panoptic": Format("COCO panoptic: a JSON file beside its folder of PNGs", read_panoptic),
}
# Formats whose files are COCO-format already and are used as they are.
LOCATED = {"coco": locate_coco, "roboflow": locate_roboflow}
NAMES = (AUTO, *LOCATED, *FORMATS)


@dataclass
class Converted:
    """Annotations in COCO's format.

    Attributes:
        content: lists of images, annotations and categories.
        images: folder that the file names are relative to.
        format: name of the format that was read.
        remarks: lines for the user: decisions of the reader, and counts of what is left out, or
            kept in a way that may not be expected.
        left_out: description -> entries that are not in the content.
        first_pixel: whether boxes were counted from 0 or 1, in a format that has both.
    """

    content: dict
    images: Path
    format: str
    remarks: list[str] = field(default_factory=list)
    left_out: dict[str, Finding] = field(default_factory=dict)
    first_pixel: int | None = None

    def report(self) -> str:
        """Return the remarks, one a line; "" if there are none."""
        return "\n".join(self.remarks)


def format_of(path: Path, name: str = AUTO) -> str:
    """Return the name of the format of a file or folder; "auto" detects it.

    Raises:
        ValueError: the name is unknown, or no format or several fit.
    """
    if name not in NAMES:
        raise ValueError(f"FORMAT {name!r} is unknown: it must be one of {', '.join(NAMES)}")
    found = detect(path) if name == AUTO else [name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{path} has annotations of several formats, {' and '.join(found)}: choose one as "
            "FORMAT (--format)"
        )
    known = "\n".join(f"  {key}: {one.description}" for key, one in FORMATS.items())
    raise ValueError(
        f"{path} has no annotations of a known format; give a COCO file (coco), Roboflow's folder "
        f"(roboflow) or, as FORMAT (--format), one of\n{known}"
    )


def convert(source: Source, format: str = AUTO) -> Converted:
    """Read annotations of any known format.

    Raises:
        OSError: a file cannot be read.
        ValueError: the format is unknown or ambiguous, or a file is invalid.
    """
    name = format_of(source.path, format)
    if name in LOCATED:
        file, images = LOCATED[name](source)
        opened = open_coco(str(file))
        lists = {key: opened[key] for key in opened.lists}
        return Converted({**opened.values, **lists}, images, name)
    dataset = FORMATS[name].read(source)
    try:
        content = dataset.content()
    except ValueError as error:
        raise ValueError(f"{source.path}: {error}") from error
    return Converted(
        content, dataset.images, name, dataset.report(), dataset.left_out, dataset.first_pixel
    )
