"""COCO, ADE20K and ImageNet's val in their own folder forms, with generated pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from PIL import Image

THINGS = [one for one in COCO_CATEGORIES if one["isthing"]]


def write_coco(
    data: Path, train: int = 118, val: int = 5, size: tuple[int, int] = (96, 72)
) -> None:
    """Write ``coco``: three rectangles in an image, of the 80 classes in turn."""
    (data / "coco/annotations").mkdir(parents=True)
    for split, count in (("train", train), ("val", val)):
        folder = data / f"coco/{split}2017"
        images, annotations = [], []
        for number in range(1, count + 1):
            name = f"{number:012d}.jpg"
            image = _noise(number, size)
            for x in (5, 35, 65):
                category = THINGS[len(annotations) % len(THINGS)]["id"]
                image[20:50, x : x + 24] += np.uint8(category)
                box = {"bbox": [x, 20, 24, 30], "area": 720, "iscrowd": 0}
                mask = [[x, 20, x + 24, 20, x + 24, 50, x, 50]]
                ids = {"id": len(annotations) + 1, "image_id": number, "category_id": category}
                annotations.append({**ids, **box, "segmentation": mask})
            _save(folder / name, image)
            images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        categories = [{"id": one["id"], "name": one["name"]} for one in THINGS]
        content = {"images": images, "annotations": annotations, "categories": categories}
        file = data / f"coco/annotations/instances_{split}2017.json"
        file.write_text(json.dumps(content), encoding="utf-8")


def write_ade20k(
    data: Path, train: int = 20, val: int = 2, size: tuple[int, int] = (96, 72)
) -> None:
    """Write ``ADEChallengeData2016`` as unpacked: labels from 0 to 150."""
    root = data / "ADEChallengeData2016"
    for split, count in (("training", train), ("validation", val)):
        for number in range(1, count + 1):
            name = f"ADE_{'train' if split == 'training' else 'val'}_{number:08d}"
            labels = np.zeros(size[::-1], np.uint8)
            labels[10:60, 10:80] = 1 + number % 150
            _save(root / f"images/{split}/{name}.jpg", _noise(number, size) + labels[..., None])
            _save(root / f"annotations/{split}/{name}.png", labels)


def write_imagenet(data: Path, size: tuple[int, int] = (48, 40)) -> None:
    """Write ``imagenet/val``: one image in each of 1000 class folders."""
    for number in range(1000):
        file = data / f"imagenet/val/n{number + 1440764:08d}/ILSVRC2012_val_{number + 1:08d}.JPEG"
        _save(file, _noise(number, size))


def _noise(seed: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 100, (size[1], size[0], 3), dtype=np.uint8)


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
