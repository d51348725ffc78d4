"""Seeded splits of a dataset into training and test images."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import PurePosixPath

from swinv2_backbone.d2.data.validation.report import counted

FOLDER = "folder"
COPY = re.compile(r"\.rf\.[0-9a-zA-Z]{16,}")  # Roboflow's mark of an augmented copy


def split_dataset(
    content: dict, share: float, seed: int = 0, group_by: str = ""
) -> tuple[dict, dict]:
    """Divide COCO-format content into two parts with the same categories.

    The images are ordered by a digest of the seed and their group, so that the result depends on
    neither their order nor their ids.

    Args:
        share: approximate fraction of the images in the second part; groups are not divided.
        seed: seed of the split.
        group_by: "folder", or a regular expression that finds the group in a file name: its first
            group, or the whole match. "": no groups, except that Roboflow's copies of one image
            stay together.

    Returns:
        The training part and the test part.

    Raises:
        ValueError: the share is not in (0, 1), the expression is invalid or finds no group in a
            name, or one part would be empty.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of a split must be between 0 and 1, got {share}")
    group_of = _grouping(group_by)
    groups = defaultdict(list)
    for image in content["images"]:
        groups[group_of(image["file_name"])].append(image["id"])
    wanted = share * len(content["images"])
    chosen: set[object] = set()
    for key in sorted(groups, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest()):
        if abs(len(chosen) + len(groups[key]) - wanted) < abs(len(chosen) - wanted):
            chosen.update(groups[key])
    if not chosen or len(chosen) == len(content["images"]):
        raise ValueError(_indivisible(groups, share))
    return _part(content, lambda key: key not in chosen), _part(content, lambda key: key in chosen)


def groups_of(content: dict, group_by: str = "") -> set[str]:
    """Return the names of the groups that :func:`split_dataset` forms of COCO-format content."""
    return {*map(_grouping(group_by), (image["file_name"] for image in content["images"]))}


def counts_by_class(content: dict) -> dict[str, int]:
    """Return class name -> number of annotations, in the order of the categories."""
    counted = Counter(one["category_id"] for one in content["annotations"])
    return {one["name"]: counted[one["id"]] for one in content["categories"]}


def _grouping(group_by: str) -> Callable[[str], str]:
    if group_by == FOLDER:
        return lambda name: str(PurePosixPath(name).parent)
    if not group_by:
        return lambda name: COPY.sub("", name)
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise ValueError(f"the group {group_by!r} is no regular expression: {error}") from error

    def group(name: str) -> str:
        found = pattern.search(COPY.sub("", name))
        if found is None:
            raise ValueError(f"the file name {name!r} does not match the group {group_by!r}")
        if not (key := found[1] if pattern.groups else found[0]):
            raise ValueError(f"the group {group_by!r} finds nothing in the file name {name!r}")
        return key

    return group


def _indivisible(groups: dict[str, list], share: float) -> str:
    """Explain why no choice of groups comes near a share of the images."""
    sizes = [len(ids) for ids in groups.values()]
    images, each = counted(sum(sizes), "image"), counted(len(groups), "group")
    why = f"the smallest has {min(sizes)}" if len(groups) > 1 else "which cannot be in both parts"
    return (
        f"a share of {share} of {images} in {each} ({why}) would leave one part empty: choose "
        "another share or smaller groups (--split, --group-by)"
    )


def _part(content: dict, wanted: Callable[[object], bool]) -> dict:
    return content | {
        "images": [one for one in content["images"] if wanted(one["id"])],
        "annotations": [one for one in content["annotations"] if wanted(one["image_id"])],
    }
