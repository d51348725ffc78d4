"""The check of a semantic segmentation dataset: folders of images and label images.

A label image holds one class number for each pixel.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from swinv2_backbone.d2.data.loading.images import image_size, read_labels, reads_plainly
from swinv2_backbone.d2.data.validation.report import Fault, Report, for_each

IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
LABELS = (".png",)

NO_IMAGES = Fault(f"no images ({', '.join(IMAGES)})", "give the folder that holds them")
NO_LABEL = Fault("images without a label image", "add the .png of the same name and subfolder")
NO_IMAGE = Fault("label images without an image", "add the image, or remove them")
SAME_NAME = Fault("files that differ only in their extension", "keep one of each")
UNREADABLE = Fault("files that are damaged, or not images", "replace or remove them")
COLORS = Fault("label images with colors", "save them as gray or palette images of class numbers")
REENCODE = Fault(
    "label images of 2- or 4-bit gray, or with an EXIF rotation, which Detectron2's evaluation "
    "would misread",
    "save them as 8-bit PNG without EXIF data",
)
OTHER_SIZE = Fault("label images of another size than their image", "make them again")
NOTHING_LABELED = Fault("no pixel with a class", "check the labels and the ignore value")
IGNORED_CLASS = Fault(
    "a class whose number is the ignore value",
    "set MODEL.SEM_SEG_HEAD.IGNORE_VALUE (ignore_value of register_semantic) to a number that is "
    "not a class",
)


@dataclass
class _Pair:
    """An image and its labels, their size (H, W), the class numbers, and the faults found."""

    image: Path
    label: Path
    size: tuple[int, int] | None = None  # None: the image cannot be read
    values: list[int] = field(default_factory=list)
    faults: list[tuple[Fault, str]] = field(default_factory=list)


def check_semantic(
    images: str, labels: str, names: list[str], ignore_value: int
) -> tuple[list[dict], Report]:
    """Check all files of a dataset; the arguments are those of ``register_semantic``.

    Returns:
        Detectron2's records, in the order of the file names, and the report.

    Raises:
        ValueError: a folder is missing, or one lies within the other.
    """
    report = Report(f"images {images} with labels {labels}")
    pairs = for_each(_inspect, _pairs(Path(images), Path(labels), report), "labels")
    for pair in pairs:
        for fault, example in pair.faults:
            report.error(fault, example)
    _check_values(pairs, len(names), ignore_value, Path(labels), report)
    if ignore_value < len(names):
        report.error(IGNORED_CLASS, f"{ignore_value} ({names[ignore_value]})")
    return [_record(pair) for pair in pairs if not pair.faults], report


def _pairs(images: Path, labels: Path, report: Report) -> list[_Pair]:
    """Return images with their labels; the others are reported."""
    for key, folder in (("IMAGES", images), ("LABELS", labels)):
        if not folder.is_dir():
            raise ValueError(f"{key} {str(folder)!r} is not a folder")
    one, other = images.resolve(), labels.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise ValueError(
            f"IMAGES {images} and LABELS {labels} must not lie within each other: "
            "labels would be taken for images"
        )
    image_files, label_files = _files(images, IMAGES, report), _files(labels, LABELS, report)
    if not image_files:
        report.error(NO_IMAGES, str(images))
    for stem in sorted(image_files.keys() - label_files.keys()):
        report.error(NO_LABEL, str(image_files[stem].relative_to(images)))
    for stem in sorted(label_files.keys() - image_files.keys()):
        report.error(NO_IMAGE, str(label_files[stem].relative_to(labels)))
    both = sorted(image_files.keys() & label_files.keys())
    return [_Pair(image_files[stem], label_files[stem]) for stem in both]


def _files(folder: Path, extensions: tuple[str, ...], report: Report) -> dict[str, Path]:
    """Return the visible files with one of the extensions, by their path without it."""
    found: dict[str, Path] = {}
    for where, _, file_names in os.walk(folder, followlinks=True):
        for path in (Path(where, file_name) for file_name in sorted(file_names)):
            if path.suffix.lower() not in extensions or path.name.startswith("."):
                continue
            stem = str(path.relative_to(folder).with_suffix(""))
            if stem in found:
                report.error(SAME_NAME, f"{found[stem].name} and {path.name} in {where}")
            found[stem] = path
    return found


def _inspect(pair: _Pair) -> _Pair:
    """Read both files, and note the size, the class numbers and the faults."""
    try:
        pair.size = image_size(pair.image)
    except OSError as error:
        pair.faults.append((UNREADABLE, str(error)))
    try:
        labels = read_labels(pair.label)
        plain = reads_plainly(pair.label)
    except OSError as error:
        pair.faults.append((UNREADABLE, str(error)))
        return pair
    except ValueError:
        pair.faults.append((COLORS, str(pair.label)))
        return pair
    pair.values = np.unique(labels).tolist()
    if not plain:
        pair.faults.append((REENCODE, str(pair.label)))
    if pair.size and labels.shape != pair.size:
        sizes = f"{labels.shape[0]}x{labels.shape[1]}, not {pair.size[0]}x{pair.size[1]}"
        pair.faults.append((OTHER_SIZE, f"{pair.label} ({sizes})"))
    return pair


def _check_values(
    pairs: list[_Pair], num_classes: int, ignore_value: int, labels: Path, report: Report
) -> None:
    seen = {value for pair in pairs for value in pair.values} - {ignore_value}
    unknown = {value for value in seen if value >= num_classes}
    if pairs and not seen:
        report.error(NOTHING_LABELED, f"{ignore_value} everywhere")
    if not unknown:
        return
    fault = _unknown_values(sorted(unknown), num_classes, ignore_value)
    for pair in pairs:
        values = sorted(unknown & set(pair.values))
        if values:
            report.error(fault, f"{pair.label.relative_to(labels)} ({_few(values)})")


def _unknown_values(unknown: list[int], num_classes: int, ignore_value: int) -> Fault:
    remedy = (
        f"name them in NAMES, or give pixels without a class the ignore value {ignore_value} "
        "(MODEL.SEM_SEG_HEAD.IGNORE_VALUE, ignore_value of register_semantic)"
    )
    if unknown == [num_classes]:
        remedy = (
            "the labels look shifted by one, as if the first class were 1: subtract 1 from each, "
            "or name the value 0 on the first line of NAMES"
        )
    return Fault(
        f"label images with values beyond the {num_classes} classes, {_few(unknown)}", remedy
    )


def _few(values: list[int]) -> str:
    return ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")


def _record(pair: _Pair) -> dict:
    assert pair.size is not None  # else the pair has a fault
    return {
        "file_name": str(pair.image),
        "sem_seg_file_name": str(pair.label),
        "height": pair.size[0],
        "width": pair.size[1],
    }
