"""COCO's panoptic format: a JSON file of segments, and PNGs whose colors encode their ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from swinv2_backbone.d2.data.formats.dataset import Dataset, Source, located
from swinv2_backbone.d2.data.formats.pictures import Pictures
from swinv2_backbone.images.reading import read_image


def read_panoptic(source: Source) -> Dataset:
    """Read the things of COCO's panoptic format as objects; stuff is left out.

    The PNGs are in the folder named as the JSON, beside it.

    Raises:
        ValueError: the file or the PNGs are missing or do not match.
    """
    file = source.path
    if source.images is None:
        raise ValueError(f"{file}: give the folder of the images (IMAGES, --images)")
    folder = file.with_suffix("")
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing: it holds the PNGs of {file.name}")
    with located(file):
        return _read(file, folder, Pictures(source.images))


def _read(file: Path, folder: Path, pictures: Pictures) -> Dataset:
    content = json.loads(file.read_text(encoding="utf-8-sig"))
    categories = {one["id"]: one for one in content["categories"]}
    things = [one["name"] for one in categories.values() if one.get("isthing", 1)]
    dataset = Dataset(pictures.root, things)
    segments = {one["image_id"]: one for one in content["annotations"]}
    for image in content["images"]:
        name = pictures.find(image["file_name"]) or image["file_name"]
        if image["id"] not in segments:
            dataset.leave_out("images without segments, which may show unlabeled objects", name)
            continue
        entry = dataset.add_image(name, (image["height"], image["width"]))
        _add(dataset, entry, segments[image["id"]], folder, categories)
    return dataset


def _add(
    dataset: Dataset, image: dict, annotation: dict[str, Any], folder: Path, categories: dict
) -> None:
    pixels = read_image(folder / annotation["file_name"], "RGB").astype(np.int64)
    numbers = pixels @ (1, 256, 65536)
    for segment in annotation["segments_info"]:
        category = categories.get(segment["category_id"])
        place = f"segment {segment['id']} in {annotation['file_name']}"
        if category is None:
            raise ValueError(f"{place} has the unknown category_id {segment['category_id']}")
        if not category.get("isthing", 1):
            dataset.leave_out("segments of stuff", place)
            continue
        mask = numbers == segment["id"]
        dataset.add_mask(image, category["name"], mask, iscrowd=segment.get("iscrowd", 0))
