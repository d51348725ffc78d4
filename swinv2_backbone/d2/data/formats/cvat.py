"""CVAT's XML for images ("CVAT for images 1.1"): boxes, polygons, masks and ellipses."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from swinv2_backbone.d2.data.formats.dataset import Dataset, Source, located
from swinv2_backbone.d2.data.formats.pictures import Pictures
from swinv2_backbone.d2.data.formats.shapes import (
    box_around,
    ellipse_mask,
    pasted,
    rotated_corners,
)
from swinv2_backbone.d2.data.formats.xml import read_xml, text_of

SHAPES = ("box", "polygon", "mask", "ellipse")
OTHERS = ("polyline", "points", "cuboid", "skeleton", "tag")


def read_cvat(source: Source) -> Dataset:
    """Read CVAT's XML for images.

    Polygons, masks and ellipses of one label and one ``group_id`` in an image are one object, as in
    CVAT's own COCO export.

    Raises:
        ValueError: it is CVAT's XML for videos, or a shape is invalid.
    """
    path = source.path / "annotations.xml" if source.path.is_dir() else source.path
    root = read_xml(path)
    if root.tag != "annotations" or root.find("track") is not None:
        raise ValueError(
            f"{path} is not CVAT's XML for images: export the task as 'CVAT for images 1.1', which "
            "writes videos frame by frame"
        )
    folder = path.parent / "images"
    pictures = Pictures(source.images or (folder if folder.is_dir() else path.parent))
    names = [text_of(label, "name") for label in root.iterfind("meta/*/labels/label")]
    dataset = Dataset(pictures.root, list(dict.fromkeys(names)) or None)
    for element in root.iterfind("image"):
        stated = element.get("name", "")
        with located(f"{path}, image {stated}"):
            size = int(element.get("height", 0)), int(element.get("width", 0))
            image = dataset.add_image(pictures.find(stated) or stated, size)
            _add_image(dataset, image, size, element)
    return dataset


def _add_image(dataset: Dataset, image: dict, size: tuple[int, int], element: Element) -> None:
    groups: dict[Any, list[Element]] = {}
    for number, shape in enumerate(element):
        place = f"{shape.get('label')} in {image['file_name']}"
        if shape.tag in OTHERS:
            dataset.leave_out(f"shapes of the type {shape.tag}", place)
        elif shape.tag in SHAPES:
            group = shape.get("group_id") or "0"
            alone = group == "0" or shape.tag == "box"
            key = number if alone else (shape.get("label"), group)
            groups.setdefault(key, []).append(shape)
    for parts in groups.values():
        _add_object(dataset, image, size, parts)


def _add_object(dataset: Dataset, image: dict, size: tuple[int, int], parts: list[Element]) -> None:
    name = parts[0].get("label") or ""
    place = f"{name} in {image['file_name']}"
    if parts[0].tag == "box":
        dataset.add_box(image, name, _box(parts[0], dataset, place))
        return
    given = [_polygon(part) for part in parts if part.tag == "polygon"]
    polygons = [polygon for polygon in given if len(polygon) >= 6]
    for _ in range(len(given) - len(polygons)):
        dataset.leave_out("polygons of fewer than 3 points", place)
    masks = [_mask(part, size, place) for part in parts if part.tag != "polygon"]
    if not masks:
        if polygons:
            dataset.add_polygons(image, name, polygons)
        return
    masks += [dataset.rasterized(image, [polygon]) for polygon in polygons]
    dataset.add_mask(image, name, np.logical_or.reduce(masks))


def _box(shape: Element, dataset: Dataset, place: str) -> list[float]:
    left, top, right, bottom = (_number(shape, key) for key in ("xtl", "ytl", "xbr", "ybr"))
    box = [left, top, right - left, bottom - top]
    angle = float(shape.get("rotation") or 0)
    if not angle:
        return box
    dataset.remark("rotated boxes, read as the box around them", place)
    return box_around(rotated_corners(box, angle, ((left + right) / 2, (top + bottom) / 2)))


def _polygon(shape: Element) -> list[float]:
    try:
        points = [tuple(map(float, p.split(","))) for p in shape.get("points", "").split(";")]
        return [value for x, y in points for value in (x, y)]
    except ValueError as error:
        raise ValueError(
            f"a polygon of {shape.get('label')} has invalid points: {error}"
        ) from error


def _mask(shape: Element, size: tuple[int, int], place: str) -> np.ndarray:
    """Return the mask (H, W) of an ellipse, or of CVAT's runs along the rows of a box."""
    if shape.tag == "ellipse":
        center, radii = (
            [_number(shape, a), _number(shape, b)] for a, b in (("cx", "cy"), ("rx", "ry"))
        )
        return ellipse_mask(size, center, radii, float(shape.get("rotation") or 0))
    left, top, width, height = (
        int(_number(shape, key)) for key in ("left", "top", "width", "height")
    )
    runs = [int(run) for run in shape.get("rle", "").split(",") if run.strip()]
    if min(runs, default=-1) < 0 or sum(runs) > width * height:
        raise ValueError(f"the runs of a mask of {place} do not fit {width}x{height} pixels")
    values = np.zeros(width * height, bool)
    bits = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    values[: len(bits)] = bits  # trailing background may be missing
    return pasted(values.reshape(height, width), left, top, size)


def _number(shape: Element, key: str) -> float:
    try:
        return float(shape.get(key, ""))
    except ValueError as error:
        raise ValueError(
            f"a {shape.tag} of {shape.get('label')} has {key}={shape.get(key)!r}"
        ) from error
