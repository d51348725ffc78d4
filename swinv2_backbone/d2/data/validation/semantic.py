"""The check of a semantic segmentation dataset: folders of images and label images.

A label image holds one class number for each pixel.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from swinv2_backbone.d2.data.loading.bands import BAND_SUFFIXES, header_of
from swinv2_backbone.d2.data.loading.images import read_labels, reads_plainly
from swinv2_backbone.d2.data.validation.images import REFUSED, unread
from swinv2_backbone.d2.data.validation.label_values import (
    LabelFile,
    check_values,
    pixels_by_value,
)
from swinv2_backbone.d2.data.validation.pairing import paired
from swinv2_backbone.d2.data.validation.report import Fault, Report, for_each
from swinv2_backbone.images.kinds import IMAGE_SUFFIXES

COLORS = Fault("label images with colors", "save them as gray or palette images of class numbers")
REENCODE = Fault(
    "label images of 2- or 4-bit gray, or with an EXIF rotation, which Detectron2's evaluation "
    "would misread",
    "save them as 8-bit PNG without EXIF data",
)
OTHER_SIZE = Fault("label images of another size than their image", "make them again")


@dataclass
class _Pair:
    """An image and its labels, their size (H, W), the pixels by value, and the faults found."""

    image: Path
    label: Path
    size: tuple[int, int] | None = None  # None: the image cannot be read
    pixels: dict[int, int] = field(default_factory=dict)
    faults: list[tuple[Fault, str]] = field(default_factory=list)


def check_semantic(
    images: str,
    labels: str,
    names: list[str],
    ignore_value: int,
    *,
    for_evaluation: bool,
    bands: int | None = None,
) -> tuple[list[dict], Report, Counter[int]]:
    """Check all files of a dataset; the arguments are those of ``register_semantic``.

    Returns:
        Detectron2's records, in the order of the file names, the report, and the number of pixels
        by value.

    Raises:
        ValueError: a folder is missing, or one lies within the other.
    """
    report = Report(f"images {images} with labels {labels}")
    suffixes = IMAGE_SUFFIXES if bands is None else BAND_SUFFIXES
    files = paired(Path(images), Path(labels), len(names), report, suffixes)
    pairs = for_each(partial(_inspect, bands=bands), [_Pair(*both) for both in files], "labels")
    for pair in pairs:
        for fault, example in pair.faults:
            report.error(fault, example)
    label_files = [LabelFile(pair.label.relative_to(labels), pair.pixels) for pair in pairs]
    pixels = check_values(label_files, names, ignore_value, report, for_evaluation=for_evaluation)
    return [_record(pair) for pair in pairs if not pair.faults], report, pixels


def _inspect(pair: _Pair, bands: int | None) -> _Pair:
    """Read both files, and note the size, the pixels by value and the faults."""
    try:
        header = header_of(pair.image, bands)
        pair.size = header.height, header.width
        if header.refused:
            pair.faults.append((REFUSED, f"{pair.image}: {header.refused}"))
    except OSError as error:
        pair.faults.append((unread(error), str(error)))
    try:
        labels = read_labels(pair.label)
        plain = reads_plainly(pair.label)
    except OSError as error:
        pair.faults.append((unread(error), str(error)))
        return pair
    except ValueError:
        pair.faults.append((COLORS, str(pair.label)))
        return pair
    pair.pixels = pixels_by_value(labels)
    if not plain:
        pair.faults.append((REENCODE, str(pair.label)))
    if pair.size and labels.shape != pair.size:
        sizes = f"{labels.shape[0]}x{labels.shape[1]}, not {pair.size[0]}x{pair.size[1]}"
        pair.faults.append((OTHER_SIZE, f"{pair.label} ({sizes})"))
    return pair


def _record(pair: _Pair) -> dict:
    assert pair.size is not None  # else the pair has a fault
    return {
        "file_name": str(pair.image),
        "sem_seg_file_name": str(pair.label),
        "height": pair.size[0],
        "width": pair.size[1],
    }
