"""Folders of instance masks: pictures whose pixel values are object numbers.

0 is the background and every other value one object. ``classes.txt`` in the folder names the class,
one name a line; with several names, a value is class x 1000 + number, counted from 0 in the order
of the lines, as in Cityscapes.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from swinv2_backbone.d2.data.formats.dataset import Dataset, Source
from swinv2_backbone.d2.data.formats.pictures import Pictures
from swinv2_backbone.images.reading import read_labels

CLASS = "object"  # name of the only class if there is no classes.txt
PER_CLASS = 1000
ENDINGS = ("_instanceIds", "_instances", "_masks", "_mask")  # of mask names


def read_instances(source: Source) -> Dataset:
    """Read pictures of object numbers, of 8 or 16 bits or with a palette.

    Raises:
        ValueError: there are no pictures, the folder of images is missing or is the same
            folder, or a value has no class.
    """
    if source.images is None or source.images.resolve() == source.path.resolve():
        raise ValueError(
            f"{source.path} holds the masks: give the folder of the images, which must be another "
            "one (IMAGES, --images)"
        )
    labels, pictures = Pictures(source.path), Pictures(source.images)
    names = _class_names(source.path)
    dataset = Dataset(pictures.root, names)
    if not labels.files:
        raise ValueError(f"there are no pictures in {source.path}")
    unlabeled = set(pictures.files)
    for file in labels.files:
        found = pictures.find(_image_name(file))
        unlabeled.discard(found or "")
        _add(dataset, found or file, source.path / file, names)
    for file in sorted(unlabeled):
        dataset.leave_out("images without a picture of object numbers", file)
    return dataset


def _class_names(folder: Path) -> list[str]:
    for place in (folder, folder.parent):
        if (place / "classes.txt").is_file():
            lines = (place / "classes.txt").read_text(encoding="utf-8-sig").splitlines()
            return [line.strip() for line in lines if line.strip()]
    return [CLASS]


def _image_name(file: str) -> str:
    """Return the name of the image, without the ending that masks have."""
    path = PurePosixPath(file)
    for ending in ENDINGS:
        if path.stem.endswith(ending):
            return str(path.with_name(path.stem.removesuffix(ending) + path.suffix))
    return file


def _add(dataset: Dataset, file_name: str, file: Path, names: list[str]) -> None:
    values = read_labels(file)
    image = dataset.add_image(file_name, (values.shape[0], values.shape[1]))
    for value in np.unique(values):
        if not value:
            continue
        number = int(value) // PER_CLASS if len(names) > 1 else 0
        if len(names) > 1 and value < PER_CLASS:
            dataset.leave_out(f"values below {PER_CLASS}, which are no single objects", file.name)
            continue
        if number >= len(names):
            raise ValueError(
                f"{file}: {value} is an object of class {number}, but classes.txt names only the "
                f"classes 0 to {len(names) - 1}"
            )
        dataset.add_mask(image, names[number], values == value)
