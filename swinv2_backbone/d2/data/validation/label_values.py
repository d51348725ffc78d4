"""The values of all label images of a semantic dataset, compared with the names of the classes.

Values that cannot be right stop a training. What is often wrong but may be right, such as a class
without a pixel, is noted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from swinv2_backbone.d2.data.validation.report import Fault, Report, counted

SMOOTHED = 32  # more unknown values than this come from smoothing
NOTHING_LABELED = Fault("no pixel with a class", "check the labels and the ignore value")
IGNORED_CLASS = Fault(
    "a class whose number is the ignore value",
    "set MODEL.SEM_SEG_HEAD.IGNORE_VALUE (ignore_value of register_semantic) to a number that is "
    "not a class",
)
ONE_CLASS = Fault(
    "one class has all pixels that are not ignored, so that there is nothing to learn",
    "check that the labels hold the objects, as the numbers of the lines in NAMES, from 0",
)
MISSING = Fault(
    "classes without a pixel",
    "check the labels and NAMES; if these classes just do not occur here, all is well",
)
SHIFTED = Fault(
    "no pixel has the value 0, though all other classes have pixels",
    "if the labels count from 1, each class has got the name of the next: subtract 1 from the "
    "labels, or name the value 0 on the first line of NAMES; if the first class just does not "
    "occur here, all is well",
)


class LabelFile(NamedTuple):
    """A label image: its path in the folder, and its number of pixels by value."""

    path: Path
    pixels: dict[int, int]


def pixels_by_value(labels: np.ndarray) -> dict[int, int]:
    """Count the pixels of each value in (H, W) labels."""
    counts = np.bincount(labels.ravel())
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def check_values(
    files: Sequence[LabelFile],
    names: Sequence[str],
    ignore_value: int,
    report: Report,
    *,
    for_evaluation: bool,
) -> Counter[int]:
    """Compare the values of label images with the names of the classes.

    Args:
        names: class names in the order of the values.
        ignore_value: value of pixels without a class.
        report: takes the findings.
        for_evaluation: the dataset is a test set, which may lack classes.

    Returns:
        The number of pixels by value.
    """
    pixels: Counter[int] = Counter()
    for file in files:
        pixels.update(file.pixels)
    seen = set(pixels) - {ignore_value}
    unknown = sorted(value for value in seen if value >= len(names))
    if ignore_value < len(names):
        report.error(IGNORED_CLASS, f"{ignore_value} ({names[ignore_value]})")
    if unknown:
        fault = _unknown_values(unknown, sorted(pixels), len(names), ignore_value, files)
        for file in files:
            values = [value for value in file.pixels if value in unknown]
            if values:
                report.error(fault, f"{file.path} ({_few(values)})")
    elif not seen and pixels:  # of files that can be read
        report.error(NOTHING_LABELED, f"{ignore_value} everywhere")
    elif not all(file.pixels for file in files):
        pass  # files that cannot be read may hold the other classes
    elif len(seen) == 1 < len(names):
        add = report.note if for_evaluation else report.error
        add(*_single_class(seen.pop(), pixels, names, ignore_value))
    elif seen:
        _note_doubts(files, seen, names, ignore_value, report)
    return pixels


def shares(pixels: Counter[int], names: Sequence[str]) -> str:
    """Return the share of each class in all pixels, in words."""
    total = max(pixels.total(), 1)
    shared = [(name, pixels[value]) for value, name in enumerate(names)]
    shared.append(("ignored", total - sum(count for _, count in shared)))
    return ", ".join(f"{name} {count / total:.2%}" for name, count in shared)


def _single_class(
    value: int, pixels: Counter[int], names: Sequence[str], ignore_value: int
) -> tuple[Fault, str]:
    """Return the fault of labels with one class, and its example."""
    ignored = pixels[ignore_value]
    example = f"{counted(pixels[value], 'pixel')} of {value} ({names[value]}), {ignored} ignored"
    if value or not ignored:
        return ONE_CLASS, example
    fault = Fault(
        f"masks of 0 and {ignore_value}; as {ignore_value} is the ignore value, only {names[0]} "
        "would be learned",
        f"write 1 for {names[1]} (in NumPy: labels[labels == {ignore_value}] = 1)",
    )
    return fault, example


def _note_doubts(
    files: Sequence[LabelFile],
    seen: set[int],
    names: Sequence[str],
    ignore_value: int,
    report: Report,
) -> None:
    """Note what is often, but not always, a fault of labels whose values all have names."""
    missing = [name for value, name in enumerate(names) if value not in seen]
    if missing == [names[0]]:
        report.note(SHIFTED, names[0])
    else:
        for name in missing:
            report.note(MISSING, name)
    together = any({1, ignore_value} <= file.pixels.keys() for file in files)
    if len(names) == 2 and not together:
        fault = Fault(
            f"label images of 0 and {ignore_value} beside others of 0 and 1",
            f"if {ignore_value} is {names[1]} in them, write 1, because {ignore_value} is ignored",
        )
        for file in files:
            if file.pixels.keys() == {0, ignore_value}:
                report.note(fault, str(file.path))


def _unknown_values(
    unknown: list[int],
    values: list[int],
    num_classes: int,
    ignore_value: int,
    files: Sequence[LabelFile],
) -> Fault:
    """Return the fault of ``unknown`` among the ``values``, with the remedy that fits them."""
    remedy = (
        f"name them in NAMES, or give pixels without a class the ignore value {ignore_value} "
        "(MODEL.SEM_SEG_HEAD.IGNORE_VALUE, ignore_value of register_semantic)"
    )
    if any(file.path.stem.endswith("_labelIds") for file in files) and num_classes == 19:
        remedy = (
            "for the 19 classes of Cityscapes' benchmark, make *_labelTrainIds.png with "
            "createTrainIdLabelImgs of cityscapesScripts"
        )
    elif unknown == [num_classes] and 0 in values:
        remedy = (
            "NAMES lacks a line: the first one names the value 0, which often is the background"
        )
    elif unknown == [num_classes]:
        remedy = (
            "the labels look shifted by one, as if the first class were 1: subtract 1 from each, "
            "or name the value 0 on the first line of NAMES"
        )
    elif _are_gray_levels(values, num_classes):
        remedy = (
            f"the values {_few(values)} look like gray levels for viewing: write 0 to "
            f"{num_classes - 1} instead"
        )
    elif len(unknown) > max(SMOOTHED, 2 * num_classes):
        remedy = (
            "masks that were resized smoothly, or saved as JPEG in between, have such values: make "
            "them again, without interpolation"
        )
    return Fault(
        f"label images with values beyond the {counted(num_classes, 'class')}, {_few(unknown)}",
        remedy,
    )


def _are_gray_levels(values: list[int], num_classes: int) -> bool:
    """Return True for as many values as classes, evenly spaced from 0 to 255."""
    if len(values) != num_classes or num_classes < 2:
        return False
    steps = [255 * place / (num_classes - 1) for place in range(num_classes)]
    return all(abs(value - step) <= 1 for value, step in zip(values, steps))


def _few(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
