"""The check of Detectron2's ADE20K datasets: are images and prepared labels there?

In the label images of the scene parsing benchmark, 0 is "other" and 1 to 150 are the classes.
Detectron2 reads prepared ones from a second folder, where the classes are 0 to 149 and "other" is
255. Label images are (H, W) uint8.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from detectron2.data import MetadataCatalog
from PIL import Image

FOLDER = "ADEChallengeData2016"
CLASSES = 150
IGNORED = 255
DATASETS = ("ade20k_sem_seg_train", "ade20k_sem_seg_val")  # Detectron2's own
SAMPLED = 20  # files of a split that are read before a training
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x00IEND\xaeB`\x82"
GRAY, INDEXED = 0, 3  # PNG's color types with one number per pixel

Item = TypeVar("Item")


def check_ade20k(names: Iterable[str]) -> None:
    """Raise ValueError if one of Detectron2's ADE20K datasets cannot be used.

    Args:
        names: names of datasets, as in `DATASETS.TRAIN`; those of other datasets are skipped.

    Raises:
        ValueError: images or labels are missing, or the labels are not prepared.
    """
    for name in names:
        if name in DATASETS:
            metadata = MetadataCatalog.get(name)
            _check_split(name, Path(metadata.image_root), Path(metadata.sem_seg_root))


def read_label_image(path: Path) -> np.ndarray:
    """Read a label image as stored; the palette, which only colors the display, is ignored."""
    png_size(path)
    try:
        with Image.open(path) as image:
            return np.array(image)
    except (OSError, SyntaxError) as error:  # Pillow raises either for damaged data
        raise ValueError(f"{path} cannot be read: {error}") from error


def png_size(path: Path) -> tuple[int, int]:
    """Return the (width, height) of a label image.

    Raises:
        ValueError: it is not a complete PNG file of 8-bit labels.
    """
    with open(path, "rb") as file:
        head = file.read(26)
        file.seek(-min(12, os.fstat(file.fileno()).st_size), os.SEEK_END)
        tail = file.read()
    if len(head) < 26 or not head.startswith(PNG_START) or tail != PNG_END:
        raise ValueError(f"{path} is not a PNG file, or only part of one")
    bits, color_type = head[24], head[25]
    # Pillow would silently scale labels of fewer bits.
    if bits != 8 or color_type not in (GRAY, INDEXED):
        raise ValueError(
            f"{path} is not an 8-bit label image ({bits} bits, PNG's color type {color_type}); "
            f"take the annotations of {FOLDER}.zip"
        )
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most ``count`` of the items, from the first to the last."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def _check_split(name: str, images: Path, labels: Path) -> None:
    stems = _stems(images, ".jpg")
    if not stems:
        raise ValueError(
            f"dataset {name}: there are no .jpg images in {images}; set the environment variable "
            f"DETECTRON2_DATASETS to the folder that holds {FOLDER}"
        )
    root = labels.parent.parent
    missing = sorted(stems - _stems(labels, ".png"))
    if missing:
        raise ValueError(
            f"dataset {name}: {len(missing)} of {len(stems)} images have no label file in "
            f"{labels}, the first: {missing[0]}.png; run swinv2 prepare-ade20k {root}"
        )
    files = [labels / f"{stem}.png" for stem in evenly_spaced(sorted(stems), SAMPLED)]
    if _are_unprepared(files, root / "annotations" / labels.name):
        raise ValueError(
            f"dataset {name}: the labels in {labels} are not the prepared ones, 0 to "
            f"{CLASSES - 1} and {IGNORED}; run swinv2 prepare-ade20k --overwrite {root}"
        )


def _stems(folder: Path, suffix: str) -> set[str]:
    if not folder.is_dir():
        return set()
    return {name[: -len(suffix)] for name in os.listdir(folder) if name.endswith(suffix)}


def _are_unprepared(files: Sequence[Path], sources: Path) -> bool:
    """Return True if label files are as they were downloaded to the folder ``sources``."""
    labels = [read_label_image(file) for file in files]
    counts = np.sum([np.bincount(label.ravel(), minlength=256) for label in labels], axis=0)
    if counts[CLASSES:IGNORED].any():
        return True
    if counts[IGNORED]:
        return False
    # Prepared labels have 255 wherever there is no class. A few images may have no such pixel.
    return len(files) == SAMPLED or any(
        (sources / file.name).is_file()
        and np.array_equal(label, read_label_image(sources / file.name))
        for file, label in zip(files, labels)
    )
