"""Label Studio's JSON and JSON-MIN, with coordinates in percent of the image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np

from swinv2_backbone.d2.data.formats.brush import decode_brush
from swinv2_backbone.d2.data.formats.dataset import Dataset, Source, located
from swinv2_backbone.d2.data.formats.pictures import Pictures
from swinv2_backbone.d2.data.formats.shapes import box_around, ellipse_mask, rotated_corners

KINDS = ("rectangle", "polygon", "brush", "ellipse")
IMAGE_KEYS = ("image", "img", "url", "photo", "picture")
Region = dict[str, Any]


def read_label_studio(source: Source) -> Dataset:
    """Read the tasks of Label Studio; of several annotations of one task, only one is taken.

    Raises:
        ValueError: the file is not Label Studio's, a region is invalid, or its image was rotated.
    """
    tasks = _read(source.path)
    pictures = Pictures(source.images or source.path.parent)
    dataset = Dataset(pictures.root)
    for number, task in enumerate(tasks):
        with located(place := f"task {task.get('id', number)}"):
            _add_task(dataset, pictures, task, place)
    return dataset


def _add_task(dataset: Dataset, pictures: Pictures, task: dict[str, Any], place: str) -> None:
    stated = _image_of(task, place)
    found = pictures.find(stated)
    regions = list(_regions(task, dataset, place))
    size = _size(regions)
    if size is None and found:
        size = pictures.size(found)
    image = dataset.add_image(found or stated, size)
    for region in regions:
        _add_region(dataset, image, region, place)


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        tasks = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise ValueError(f"{file} is not Label Studio's JSON: it is not a list of tasks")
    return tasks


def _image_of(task: dict[str, Any], place: str) -> str:
    """Return the path or file name of a task's image."""
    data = task.get("data", task)
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    keys = [key for key in IMAGE_KEYS if key in texts]
    keys += [key for key, value in texts.items() if "/" in value]
    if not keys:
        raise ValueError(f"{place} names no image: its data has {', '.join(map(str, data))}")
    url = urlparse(texts[keys[0]])
    local = parse_qs(url.query).get("d")  # /data/local-files/?d=folder/a.jpg
    return local[0] if local else url.path.lstrip("/")


def _regions(task: dict[str, Any], dataset: Dataset, place: str) -> Iterator[Region]:
    """Yield the regions of a task, each with "kind" and "labels"."""
    if "data" not in task:
        lists = [value for value in task.values() if isinstance(value, list)]
        flat = [one for some in lists for one in some if isinstance(one, dict)]
        results = [{"value": one} | one for one in flat if "original_width" in one]
    else:
        results = _results(task, dataset, place)
    merged: dict[Any, Region] = {}
    for number, result in enumerate(results):  # labels may be a separate result with the same id
        key = result.get("id") or number
        region = merged.setdefault(key, {"labels": [], "kind": ""})
        region |= {k: v for k, v in result.items() if k not in ("value", "type", "labels")}
        value = result.get("value") or {}
        region.setdefault("value", {}).update(value)
        for name, entry in value.items():
            if name == "labels" or name.endswith("labels"):
                region["labels"] = [*entry] if isinstance(entry, list) else [str(entry)]
        kind = str(result.get("type") or _kind(value)).removesuffix("labels")
        region["kind"] = kind or region["kind"]
    for region in merged.values():
        if region["kind"] in KINDS:
            yield region
        else:
            dataset.leave_out(f"regions of the type {region['kind'] or 'unknown'}", place)


def _results(task: dict[str, Any], dataset: Dataset, place: str) -> list[dict[str, Any]]:
    """Return the results of the annotation to take: the ground truth, or else the first."""
    found = task.get("annotations") or task.get("completions") or []
    usable = [one for one in found if not (one.get("was_cancelled") or one.get("skipped"))]
    if len(usable) < len(found):
        dataset.leave_out("annotations that were skipped", place)
    if len(usable) > 1:
        usable.sort(key=lambda one: not one.get("ground_truth"))
        dataset.leave_out("further annotations of one image", place)
    if not usable:
        dataset.remark("tasks without an annotation, read as images without objects", place)
        return []
    return list(usable[0].get("result") or [])


def _kind(value: dict[str, Any]) -> str:
    """Infer the kind of a region from its keys; JSON-MIN does not state it."""
    for kind, key in (("brush", "rle"), ("polygon", "points"), ("ellipse", "radiusX")):
        if key in value:
            return kind
    return "rectangle" if "width" in value and "x" in value else ""


def _size(regions: list[Region]) -> tuple[int, int] | None:
    for region in regions:
        if region.get("original_height") and region.get("original_width"):
            return int(region["original_height"]), int(region["original_width"])
    return None


def _add_region(dataset: Dataset, image: dict, region: Region, place: str) -> None:
    if not region["labels"]:
        dataset.leave_out("regions without a label", place)
        return
    if region.get("image_rotation"):
        raise ValueError(
            f"{place}: its image was rotated by {region['image_rotation']} degrees in Label Studio"
            ": rotate the file instead, and label it again"
        )
    if len(region["labels"]) > 1:
        dataset.leave_out("further labels of one region", place)
    name, value, kind = str(region["labels"][0]), region["value"], region["kind"]
    height, width = image["height"], image["width"]
    try:
        if kind == "brush":
            dataset.add_mask(image, name, decode_brush(value["rle"], height, width))
        elif kind == "polygon":
            points = [(x * width / 100, y * height / 100) for x, y in value["points"]]
            if len(points) < 3:
                dataset.leave_out("polygons of fewer than 3 points", place)
            else:
                dataset.add_polygons(image, name, [[v for point in points for v in point]])
        elif kind == "ellipse":
            dataset.add_mask(image, name, _ellipse(value, height, width))
        else:
            dataset.add_box(image, name, _rectangle(value, height, width, dataset, place))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{place}: a {kind} of {name} has no valid {error}") from error


def _rectangle(value: dict, height: int, width: int, dataset: Dataset, place: str) -> list[float]:
    """Return the box of a rectangle, which is rotated about its upper left corner."""
    box = [
        value["x"] * width / 100,
        value["y"] * height / 100,
        value["width"] * width / 100,
        value["height"] * height / 100,
    ]
    angle = value.get("rotation") or 0
    if not angle:
        return box
    dataset.remark("rotated rectangles, read as the box around them", place)
    return box_around(rotated_corners(box, angle, (box[0], box[1])))


def _ellipse(value: dict, height: int, width: int) -> np.ndarray:
    center = value["x"] * width / 100, value["y"] * height / 100
    radii = value["radiusX"] * width / 100, value["radiusY"] * height / 100
    return ellipse_mask((height, width), center, radii, value.get("rotation") or 0)
