"""Lists of images in formats that hold several, such as train and val."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from swinv2_backbone.d2.data.formats.dataset import Source
from swinv2_backbone.images.kinds import is_hidden

# Names that formats give to the training and test subsets, in order of preference.
NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation", "test")}

# A second column of VOC's lists: whether a class is shown, or the number of an object.
COLUMN = re.compile(r"^(.*\S)\s+-?\d+$")


def chosen(subset: str, available: Collection[str], place: object) -> str:
    """Return the available subset that matches ``subset``.

    "train" and "val" also match the names that tools use for them. If only one subset is available,
    it is taken whatever its name; "" requires that.

    Raises:
        ValueError: no subset fits, or several do.
    """
    for name in (subset, *NAMES.get(subset, ())):
        if name in available:
            return name
    if len(available) == 1:
        return next(iter(available))
    if subset:
        raise ValueError(f"{place} has no {subset}: it has {', '.join(sorted(available))}")
    raise ValueError(
        f"{place} has several lists of images: choose {' or '.join(sorted(available))} "
        "(--subset of swinv2 convert-dataset)"
    )


def listed_names(
    source: Source, folders: Sequence[str], known: Callable[[str], bool]
) -> list[str] | None:
    """Return the names in a list of VOC's ``ImageSets``; None if the folder has no such lists.

    Args:
        known: returns True for the name of an image, which tells "photo 12" from "photo" with a
            number in a second column.
    """
    for folder in folders:
        place = source.path / "ImageSets" / folder
        files = [file for file in sorted(place.glob("*.txt")) if not is_hidden(file.name)]
        lists = {file.stem: file for file in files if not _of_one_class(file, known)}
        if not lists:
            continue
        if not source.subset and len(lists) > 1:
            names = [name for file in lists.values() for name in _lines(file, known)]
            return list(dict.fromkeys(names))
        return _lines(lists[chosen(source.subset, lists, place)], known)
    return None


def _of_one_class(file: Path, known: Callable[[str], bool]) -> bool:
    """Return True for VOC's lists such as ``cat_train.txt``, whose second column is 1, 0 or -1."""
    with file.open(encoding="utf-8-sig") as lines:
        first = lines.readline().strip()
    return "_" in file.stem and first.split()[-1:] in (["1"], ["0"], ["-1"]) and not known(first)


def _lines(file: Path, known: Callable[[str], bool]) -> list[str]:
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    return [line if known(line) else COLUMN.sub(r"\1", line) for line in lines if line]
