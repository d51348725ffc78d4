"""Annotations of any format as a COCO-format file, converted if necessary."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import NamedTuple

from detectron2.utils import comm

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.d2.data.formats.conversion import (
    AUTO,
    LOCATED,
    Converted,
    convert,
    format_of,
)
from swinv2_backbone.d2.data.formats.dataset import Source
from swinv2_backbone.d2.data.validation.source import InMemory, open_coco
from swinv2_backbone.d2.data.validation.source import Source as CocoSource

# The first key of a converted file, which tells our files from those of the user.
MARK = "converted_from"


class CocoFile(NamedTuple):
    """A COCO file, and how it came about.

    Attributes:
        json_file: its path.
        images: folder that its file names are relative to.
        first_pixel: whether the boxes of its source were counted from 0 or 1; None in most formats.
    """

    json_file: str
    images: str
    first_pixel: int | None = None


def coco_file_of(
    json_file: str,
    images: str,
    *,
    name: str,
    format: str = AUTO,
    for_evaluation: bool = False,
    output_dir: str | None = None,
) -> CocoFile:
    """Return the COCO file of a dataset.

    Other formats are converted to ``output_dir/datasets/NAME_from_FORMAT.json``.

    Args:
        json_file: file or folder of annotations.
        images: folder of the images; "": where the format puts them.
        name: name of the dataset.
        format: name of its format; "auto": detected.
        for_evaluation: take the format's list of images for validation, not that for training.
        output_dir: folder for a converted file; without it, only COCO's format can be used.

    Raises:
        ValueError: the annotations cannot be read, or a file of the user is in the way.
    """
    source = _source(json_file, images, for_evaluation)
    found = _format_of(source, format)
    if found in LOCATED:
        path, folder = LOCATED[found](source)
        return CocoFile(str(path), str(folder))
    if output_dir is None:
        raise ValueError(
            f"{json_file} is converted from the format {found} to a file of its own: give the "
            "folder for it as output_dir (datasets.*.output_dir)"
        )
    converted = _converted(source, found)
    target = Path(output_dir, "datasets", f"{name}_from_{found}.json")
    _write(converted.content, json_file, target)
    if comm.is_main_process():
        logger = logging.getLogger(__name__)
        report = "".join(f"\n  {line}" for line in converted.report().splitlines())
        logger.info(f"{json_file} is read as {found}, and converted to {target}{report}")
    return CocoFile(str(target), str(converted.images), converted.first_pixel)


def coco_source_of(
    json_file: str, images: str = "", format: str = AUTO, for_evaluation: bool = False
) -> CocoSource:
    """Return a dataset of any format as a COCO file, without writing one.

    Raises:
        ValueError: the annotations cannot be read.
    """
    source = _source(json_file, images, for_evaluation)
    found = _format_of(source, format)
    if found in LOCATED:
        return open_coco(str(LOCATED[found](source)[0]))
    return InMemory(_converted(source, found).content)


def _source(json_file: str, images: str, for_evaluation: bool) -> Source:
    subset = "val" if for_evaluation else "train"
    return Source(Path(json_file), Path(images) if images else None, subset)


def _format_of(source: Source, format: str) -> str:
    if not source.path.exists():
        raise ValueError(f"JSON {str(source.path)!r} does not exist")
    return format_of(source.path, format)


def _converted(source: Source, format: str) -> Converted:
    try:
        return convert(source, format)
    except OSError as error:
        raise ValueError(f"{source.path}: {error}") from error


def _write(content: dict, json_file: str, target: Path) -> None:
    """Write a converted file unless it exists with this content.

    Several processes may do so at once, with equal content.
    """
    text = json.dumps({MARK: json_file} | content)
    if target.exists():
        old = target.read_text(encoding="utf-8", errors="replace")
        if old == text:
            return
        if old and not old.startswith(f'{{"{MARK}": '):
            raise ValueError(
                f"{target} is in the way of the converted copy of {json_file}: move it, or choose "
                "another OUTPUT_DIR (output_dir)"
            )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, text)
