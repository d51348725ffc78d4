"""LabelMe: one JSON file per image, with shapes of several types.

Shapes of one label and one ``group_id`` in a file are the parts of one object.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from swinv2_backbone.d2.data.formats.dataset import Dataset, Source, located
from swinv2_backbone.d2.data.formats.pictures import Pictures
from swinv2_backbone.d2.data.formats.shapes import box_around, ellipse_mask, pasted
from swinv2_backbone.images.kinds import visible_files
from swinv2_backbone.images.opening import damage_named

ROTATED = ("rotation", "oriented_rectangle")
NO_AREA = ("line", "linestrip", "point", "points")


def read_labelme(source: Source) -> Dataset:
    """Read polygons, rectangles, circles and masks; lines and points are left out.

    Raises:
        ValueError: a file is not LabelMe's, or a shape is invalid.
    """
    files = [source.path]
    if source.path.is_dir():
        files = sorted(file for file in visible_files(source.path) if file.suffix == ".json")
    folder = source.path if source.path.is_dir() else source.path.parent
    pictures = Pictures(source.images or folder)
    dataset = Dataset(pictures.root)
    for file in files:
        with located(file):
            _add_file(dataset, pictures, file, _read(file))
    if not files:
        raise ValueError(f"there are no .json files in {folder}")
    return dataset


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise ValueError(f"{file} is not a LabelMe file: it has no list of shapes")
    return content


def _add_file(dataset: Dataset, pictures: Pictures, file: Path, content: dict[str, Any]) -> None:
    stated = str(content.get("imagePath") or "")
    beside = file.parent / stated.replace("\\", "/")
    found = None
    if stated and beside.is_file() and beside.resolve().is_relative_to(pictures.root.resolve()):
        found = beside.resolve().relative_to(pictures.root.resolve()).as_posix()
    found = found or (pictures.find(stated) if stated else None) or pictures.find(file.stem)
    height, width = content.get("imageHeight"), content.get("imageWidth")
    size = (int(height), int(width)) if height and width else None
    if size is None:
        size = pictures.size(found or stated)
    image = dataset.add_image(found or stated or file.stem, size)
    groups: dict[Any, list[tuple[dict, str]]] = {}
    for number, shape in enumerate(content["shapes"]):
        place = f"{file}, shape {number}"
        label, group = str(shape.get("label")), shape.get("group_id")
        kind = shape.get("shape_type") or "polygon"
        if kind in NO_AREA:
            dataset.leave_out(f"shapes of the type {kind}, which have no area", place)
            continue
        key = number if group is None else (label, str(group))
        groups.setdefault(key, []).append((shape, place))
    for parts in groups.values():
        _add_object(dataset, image, size, parts)


def _add_object(
    dataset: Dataset, image: dict, size: tuple[int, int], parts: list[tuple[dict, str]]
) -> None:
    """Add the object of one or several shapes."""
    name = str(parts[0][0].get("label"))
    polygons, boxes = [], []
    mask = np.zeros(size, bool)
    for shape, place in parts:
        kind, points = shape.get("shape_type") or "polygon", _points(shape, place)
        if kind == "rectangle" or kind in ROTATED:
            boxes.append(box_around(points))
            if kind in ROTATED:
                dataset.remark("rotated rectangles, read as the box around them", place)
        elif kind == "polygon":
            if len(points) < 3:
                dataset.leave_out("polygons of fewer than 3 points", place)
            else:
                polygons.append([value for point in points for value in point])
        elif kind == "circle":
            (x, y), edge = points[0], points[1]
            radius = math.dist((x, y), edge)
            mask |= ellipse_mask(size, (x, y), (radius, radius))
        elif kind == "mask":
            mask |= _bitmap(shape, points, place, size)
        else:
            dataset.leave_out(f"shapes of the unknown type {kind}", place)
    _add_parts(dataset, image, name, polygons, boxes, mask)


def _add_parts(
    dataset: Dataset, image: dict, name: str, polygons: list, boxes: list, mask: np.ndarray
) -> None:
    """Add the parts of one object: as a mask if one is a mask, else as polygons or a box."""
    if mask.any():
        for polygon in polygons:
            mask |= dataset.rasterized(image, [polygon])
        dataset.add_mask(image, name, mask)
    elif polygons:
        dataset.add_polygons(image, name, polygons)
    elif boxes:
        corners = [(x, y) for x, y, *_ in boxes] + [(x + w, y + h) for x, y, w, h in boxes]
        dataset.add_box(image, name, box_around(corners))
    if boxes and (polygons or mask.any()):
        dataset.leave_out("rectangles in a group with masks", f"{name} in {image['file_name']}")


def _points(shape: dict, place: str) -> list[tuple[float, float]]:
    """Return the points of a shape.

    Raises:
        ValueError: there are too few for its type, or one is not two finite numbers.
    """
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    try:
        found = [(float(x), float(y)) for x, y in _entries(points)]
    except (TypeError, ValueError):
        found = []
    least = {"rectangle": 2, "circle": 2, "mask": 2}.get(kind, 1)
    if len(found) < least or not all(math.isfinite(v) for point in found for v in point):
        raise ValueError(f"{place}: a {kind} cannot have the points {points!r:.60}")
    return found


def _entries(points: object) -> Iterable:
    return points if isinstance(points, list) else ()


def _bitmap(shape: dict, points: list, place: str, size: tuple[int, int]) -> np.ndarray:
    """Decode a mask: a PNG of the box from the first point to the second, both included."""
    left, top = (round(value) for value in points[0])
    try:
        data = base64.b64decode(str(shape.get("mask")), validate=True)
    except ValueError as error:
        raise ValueError(f"{place}: its mask is not base64: {error}") from error
    with damage_named(f"{place}: its mask"), Image.open(io.BytesIO(data)) as picture:
        pixels = np.atleast_3d(np.asarray(picture.convert("1") if picture.mode == "P" else picture))
    return pasted(np.asarray((pixels > 0).any(-1)), left, top, size)
