"""A user's own semantic segmentation: folders of pictures and labels, and a file of class names.

A label image holds one class number for each pixel; number i is line i of the names, from 0 on.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from swinv2_backbone.d2.data.datasets.catalog import claim, require_free
from swinv2_backbone.d2.data.loading.images import image_size, read_labels, reads_plainly
from swinv2_backbone.d2.data.validation.report import Fault, Report, for_each

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
LABELS = (".png",)

NO_PICTURES = Fault(f"no pictures ({', '.join(PICTURES)})", "give the folder that holds them")
NO_LABEL = Fault("pictures without a label image", "add the .png of the same name and subfolder")
NO_PICTURE = Fault("label images without a picture", "add the picture, or remove them")
SAME_NAME = Fault("files that differ only in their ending", "keep one of each")
UNREADABLE = Fault("files that are damaged, or no pictures", "replace or remove them")
COLOURS = Fault("label images with colours", "save them as grey or palette images of class numbers")
REENCODE = Fault(
    "label images of 2 or 4 bit grey, or with a turn in their EXIF, which Detectron2's evaluation "
    "would misread",
    "save them as 8 bit PNG without EXIF",
)
OTHER_SIZE = Fault("label images of another size than their picture", "make them anew")
NOTHING_LABELLED = Fault("no pixel with a class", "check the labels and the ignore value")
IGNORED_CLASS = Fault(
    "a class whose number is the ignore value",
    "set MODEL.SEM_SEG_HEAD.IGNORE_VALUE to a number that is no class",
)


@dataclass
class _Pair:
    """A picture, its labels, and what is in them."""

    picture: Path
    label: Path
    size: tuple[int, int] | None = None  # H, W
    values: list[int] = field(default_factory=list)
    faults: list[tuple[Fault, str]] = field(default_factory=list)


def register_semantic(
    name: str, images: str, labels: str, names_file: str, ignore_value: int = 255
) -> None:
    """Check a semantic segmentation dataset, and register it in Detectron2 under ``name``.

    Args:
        images: folder of the pictures, searched with its subfolders.
        labels: folder of the label images, .png of the same names in the same subfolders.
        names_file: text file in UTF-8 with one class name a line; line i, from 0 on, names the
            label value i.  There are no comments and, but for the end, no blank lines.
        ignore_value: label value of pixels that belong to no class.

    Raises:
        ValueError: the files cannot be used, with everything that is wrong with them; or ``name``
            belongs to another dataset.
    """
    source = (str(images), str(labels), str(names_file))
    require_free(name, *source)
    names = read_names(names_file)
    records, report = check_semantic(images, labels, names, ignore_value)
    report.raise_errors()
    claim(name, *source)
    DatasetCatalog.register(name, lambda: [dict(record) for record in records])
    MetadataCatalog.get(name).set(
        stuff_classes=names,
        evaluator_type="sem_seg",
        ignore_label=ignore_value,
        image_root=str(images),
        sem_seg_root=str(labels),
    )


def read_names(names_file: str) -> list[str]:
    """The class names in a file, in the order of the label values.

    Raises:
        ValueError: there is no such file, or a name is blank or there twice.
    """
    try:
        lines = Path(names_file).read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"NAMES {str(names_file)!r} cannot be read: {error}") from error
    names = [line.strip() for line in lines]
    blank = [number for number, name in enumerate(names) if not name]
    repeated = [name for name, count in Counter(names).items() if name and count > 1]
    if not names or blank or repeated:
        faults = ["it has no names"] if not names else []
        faults += [f"line {number + 1} is blank" for number in blank]
        faults += [f"{name!r} is there twice" for name in repeated]
        raise ValueError(
            f"NAMES {str(names_file)!r} must name one class a line: {', '.join(faults[:10])}"
        )
    return names


def check_semantic(
    images: str, labels: str, names: list[str], ignore_value: int
) -> tuple[list[dict], Report]:
    """Look through all files of a dataset; arguments as for :func:`register_semantic`.

    Returns:
        Detectron2's records, in the order of the file names, and what is wrong.

    Raises:
        ValueError: a folder is missing, or they lie within each other.
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
    """Pictures with their labels; the others are reported."""
    for key, folder in (("IMAGES", images), ("LABELS", labels)):
        if not folder.is_dir():
            raise ValueError(f"{key} {str(folder)!r} is not a folder")
    one, other = images.resolve(), labels.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise ValueError(
            f"IMAGES {images} and LABELS {labels} must not lie within each other: "
            "labels would be taken for pictures"
        )
    pictures, label_files = _files(images, PICTURES, report), _files(labels, LABELS, report)
    if not pictures:
        report.error(NO_PICTURES, str(images))
    for stem in sorted(pictures.keys() - label_files.keys()):
        report.error(NO_LABEL, str(pictures[stem].relative_to(images)))
    for stem in sorted(label_files.keys() - pictures.keys()):
        report.error(NO_PICTURE, str(label_files[stem].relative_to(labels)))
    both = sorted(pictures.keys() & label_files.keys())
    return [_Pair(pictures[stem], label_files[stem]) for stem in both]


def _files(folder: Path, endings: tuple[str, ...], report: Report) -> dict[str, Path]:
    """The files with one of the endings by their path without it; hidden ones are left out."""
    found: dict[str, Path] = {}
    for where, _, file_names in os.walk(folder, followlinks=True):
        for path in (Path(where, file_name) for file_name in sorted(file_names)):
            if path.suffix.lower() not in endings or path.name.startswith("."):
                continue
            stem = str(path.relative_to(folder).with_suffix(""))
            if stem in found:
                report.error(SAME_NAME, f"{found[stem].name} and {path.name} in {where}")
            found[stem] = path
    return found


def _inspect(pair: _Pair) -> _Pair:
    """Read what is needed of both files."""
    try:
        pair.size = image_size(pair.picture)
    except OSError as error:
        pair.faults.append((UNREADABLE, str(error)))
    try:
        labels = read_labels(pair.label)
        plain = reads_plainly(pair.label)
    except OSError as error:
        pair.faults.append((UNREADABLE, str(error)))
        return pair
    except ValueError:
        pair.faults.append((COLOURS, str(pair.label)))
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
        report.error(NOTHING_LABELLED, f"{ignore_value} everywhere")
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
        "(MODEL.SEM_SEG_HEAD.IGNORE_VALUE)"
    )
    if unknown == [num_classes]:
        remedy = (
            "the labels look shifted by one, as if the first class were 1: take 1 from each, or "
            "name the value 0 on the first line of NAMES"
        )
    return Fault(
        f"label images with values beyond the {num_classes} classes, {_few(unknown)}", remedy
    )


def _few(values: list[int]) -> str:
    return ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")


def _record(pair: _Pair) -> dict:
    height, width = pair.size
    return {
        "file_name": str(pair.picture),
        "sem_seg_file_name": str(pair.label),
        "height": height,
        "width": width,
    }
