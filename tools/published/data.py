"""The check of COCO, ADE20K and ImageNet in the folder ``--data``."""

from __future__ import annotations

import re
from pathlib import Path

IMAGES = {  # suite -> split -> folder of its images, and how many the published set has
    "coco": {"train": ("coco/train2017", 118287), "val": ("coco/val2017", 5000)},
    "ade20k": {
        "train": ("ADEChallengeData2016/images/training", 20210),
        "val": ("ADEChallengeData2016/images/validation", 2000),
    },
    "imagenet": {"val": ("imagenet/val", 50000)},
}
LABELS = {
    "coco": tuple(f"coco/annotations/instances_{split}2017.json" for split in ("train", "val")),
    "ade20k": tuple(f"ADEChallengeData2016/annotations/{s}" for s in ("training", "validation")),
    "imagenet": (),
}
ARCHIVES = {
    "coco": "unpack train2017.zip, val2017.zip and annotations_trainval2017.zip in {}/coco",
    "ade20k": "unpack ADEChallengeData2016.zip in {}",
    "imagenet": "unpack ILSVRC2012_img_val.tar in {}/imagenet/val, one folder for each class",
}
CLASSES = 1000  # folders of ImageNet
SUFFIXES = (".jpg", ".jpeg")


def full_sizes(suite: str) -> dict[str, int]:
    """Return the number of images of each split of the published set."""
    return {split: number for split, (_, number) in IMAGES[suite].items()}


def check(suite: str, data: Path) -> dict[str, int]:
    """Return the number of images of each split.

    Raises:
        FileNotFoundError: A file or folder is missing.
        ValueError: A folder has no images, or ImageNet does not have its classes.
    """
    remedy = f"{ARCHIVES[suite].format(data)}, or give another --data"
    folders = {split: data / folder for split, (folder, _) in IMAGES[suite].items()}
    for path in (*folders.values(), *(data / name for name in LABELS[suite])):
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}: {remedy}")
    if suite == "imagenet":
        _check_classes(folders["val"], remedy)
    found = {split: sum(map(_is_image, folder.rglob("*"))) for split, folder in folders.items()}
    for split, number in found.items():
        if not number:
            raise ValueError(f"{folders[split]} has no images ({', '.join(SUFFIXES)}): {remedy}")
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _check_classes(folder: Path, remedy: str) -> None:
    """Class n of a model is the n-th folder, so all must be there, and no other."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if other := [name for name in names if not re.fullmatch(r"n\d{8}", name)]:
        raise ValueError(f"{folder / other[0]} is no class of ImageNet (n and 8 digits): {remedy}")
    if len(names) != CLASSES:
        raise ValueError(f"{folder} has {len(names)} class folders, not {CLASSES}: {remedy}")
