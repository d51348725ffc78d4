"""A user's own semantic segmentation dataset, registered in Detectron2 after a check."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from swinv2_backbone.d2.data.datasets.catalog import claim, require_free
from swinv2_backbone.d2.data.validation.label_values import shares
from swinv2_backbone.d2.data.validation.report import counted
from swinv2_backbone.d2.data.validation.semantic import check_semantic


def register_semantic(
    name: str,
    images: str,
    labels: str,
    names_file: str,
    ignore_value: int = 255,
    for_evaluation: bool = False,
    bands: int | None = None,
) -> None:
    """Check a semantic segmentation dataset, and register it in Detectron2 under ``name``.

    Args:
        name: name for the registration.
        images: folder of the images, searched with its subfolders.
        labels: folder of the label images, .png files of the same names in the same subfolders;
            names may have one of the endings in :mod:`swinv2_backbone.d2.data.validation.pairing`.
        names_file: text file in UTF-8 with one class name per line; line i, counted from 0, names
            the label value i. Comments and blank lines are not allowed, except blank lines at the
            end.
        ignore_value: label value of pixels that belong to no class.
        for_evaluation: the dataset is for evaluation, and may have pixels of a single class.
        bands: number of bands that each image must have, for images of the format "BANDS"; None:
            RGB images.

    Raises:
        ValueError: the files cannot be used; the message lists every fault. Or ``name`` belongs to
            another dataset.
    """
    source = (str(images), str(labels), str(names_file))
    require_free(name, *source)
    names = read_names(names_file)
    records, report, pixels = check_semantic(
        images, labels, names, ignore_value, for_evaluation=for_evaluation, bands=bands
    )
    report.raise_errors()
    if comm.is_main_process():
        log = logging.getLogger(__name__)
        log.info(
            f"{counted(len(records), 'label image')} in {labels}; pixels: {shares(pixels, names)}"
        )
        if report.notes:
            log.warning(str(report))
    claim(name, *source)
    DatasetCatalog.register(name, lambda: [dict(record) for record in records])
    MetadataCatalog.get(name).set(
        stuff_classes=names,
        evaluator_type="sem_seg",
        ignore_label=ignore_value,
        image_root=str(images),
        sem_seg_root=str(labels),
        image_files=[record["file_name"] for record in records],
    )


def read_names(names_file: str) -> list[str]:
    """Read the class names of a file, in the order of the label values.

    Raises:
        ValueError: the file is missing, or a name is blank or duplicate.
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
            f"NAMES {str(names_file)!r} must name one class per line: {', '.join(faults[:10])}"
        )
    return names
