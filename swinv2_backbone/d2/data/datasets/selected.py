"""Datasets that a config selects by name: are they registered, and do their files exist?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from swinv2_backbone.d2.data.datasets.classes import difference
from swinv2_backbone.d2.data.storage.digests import load_digests, save_digests
from swinv2_backbone.d2.data.validation.ade20k import check_ade20k
from swinv2_backbone.d2.data.validation.overlap import images_in_both, overlap_warning

FILES = ("json_file", "image_root", "sem_seg_root", "panoptic_json", "panoptic_root")


def check_datasets(names: Sequence[str]) -> None:
    """Raise ValueError if a dataset cannot be used for training or testing.

    Args:
        names: names of datasets, as in ``DATASETS.TRAIN``.

    Raises:
        ValueError: a name is unknown, files are missing, or the labels of ADE20K are not prepared.
    """
    for name in names:
        if name not in DatasetCatalog:
            raise ValueError(
                f"dataset {name!r} is not registered: give Detectron2's name of a dataset, or your "
                "own files (docs/DATASETS.md)"
            )
        _check_files(name)
    check_ade20k(names)


def check_same_classes(names: Sequence[str], kind: str) -> None:
    """Raise ValueError if the datasets do not have the same classes in the same order.

    Args:
        names: names of registered datasets; those without classes are skipped.
        kind: "thing_classes" or "stuff_classes".
    """
    known = {name: list(MetadataCatalog.get(name).get(kind, ())) for name in names}
    known = {name: classes for name, classes in known.items() if classes}
    for name, classes in known.items():
        first = next(iter(known))
        if classes != known[first]:
            raise ValueError(
                f"the classes of {name} ({_some(classes)}) are not those of {first} "
                f"({_some(known[first])}): {difference(classes, known[first])}; register_coco "
                f"matches them by name if it gets the classes of {first} as classes"
            )


def warn_of_images_in_both(
    trained: Sequence[str], tested: Sequence[str], cache: Path | None = None
) -> None:
    """Log which images of the test sets are also in the training sets.

    Args:
        trained, tested: names of registered datasets; those whose metadata have no ``image_files``
            are skipped.
        cache: folder that keeps digests of files for later runs.
    """
    digests = load_digests(cache)
    before = len(digests)
    files = {name: MetadataCatalog.get(name).get("image_files", ()) for name in (*trained, *tested)}
    train = [path for name in trained for path in files[name]]
    for name in tested:
        pairs = images_in_both(train, files[name], digests)
        words = overlap_warning(pairs, name, ", ".join(trained), len(files[name]), len(train))
        if words:
            logging.getLogger(__name__).warning(words)
    save_digests(digests, cache, before)


def warn_of_other_counts(trained: Sequence[str], tested: Sequence[str]) -> None:
    """Warn if boxes of test sets were counted from another pixel than those of training sets."""
    firsts = {name: MetadataCatalog.get(name).get("first_pixel") for name in (*trained, *tested)}
    for name in tested:
        for other in trained:
            if {firsts[name], firsts[other]} == {0, 1}:
                logging.getLogger(__name__).warning(
                    f"The boxes of {name} count pixels from {firsts[name]}, those of {other} from "
                    f"{firsts[other]}, as far as boxes at the image's edge tell. If one tool wrote "
                    "both, set FORMAT (format) voc_from_one or voc_from_zero for both"
                )


def _check_files(name: str) -> None:
    metadata = MetadataCatalog.get(name)
    if name.startswith("ade20k_sem_seg"):
        return  # check_ade20k names the command that makes the files
    for key in FILES:
        path = metadata.get(key)
        if path and not Path(path).exists():
            raise ValueError(
                f"dataset {name}: {path} does not exist; set the environment variable "
                "DETECTRON2_DATASETS to the folder that holds Detectron2's datasets"
            )


def _some(classes: list[str], shown: int = 10) -> str:
    return ", ".join(classes[:shown]) + (", ..." if len(classes) > shown else "")
