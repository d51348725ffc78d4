"""A user's own COCO-format dataset: checked, mended in a copy where that is needed, registered."""

from __future__ import annotations

import json
import logging
import os
import uuid
from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.utils import comm

from swinv2_backbone.d2.data.datasets.catalog import claim, require_free
from swinv2_backbone.d2.data.validation.coco import check_coco

PARTS = ("images", "annotations", "categories")
# The first key of a mended copy, by which we know that a file is ours to replace.
MARK = "mended_copy_of"


def register_coco(
    name: str,
    json_file: str,
    images: str,
    *,
    masks: bool = True,
    mask_format: str = "polygon",
    output_dir: str | None = None,
    for_evaluation: bool = False,
    images_outside: bool = False,
) -> None:
    """Check a dataset in COCO's format, and register it in Detectron2 under ``name``.

    What has an obvious remedy is mended in a copy, ``output_dir/datasets/NAME.json``, which is
    then registered instead of ``json_file``; what was mended is logged.  Again under the same
    name, the same files are read and registered anew.

    Args:
        images: the folder that the file names in ``json_file`` start from.
        masks: a model that learns masks will use it.
        mask_format: "polygon" or "bitmask", which also takes RLE; as in ``INPUT.MASK_FORMAT``.
        output_dir: where a copy may be written; without it, what would be mended is an error.
        for_evaluation: it is for evaluation, which needs more of the file than training.
        images_outside: file names may lead out of the folder of images.

    Raises:
        ValueError: the files cannot be used, with everything that is wrong with them; or ``name``
            belongs to another dataset.
    """
    if mask_format not in ("polygon", "bitmask"):
        raise ValueError(f"mask_format must be polygon or bitmask, got {mask_format!r}")
    json_file, images = str(json_file), str(images)
    require_free(name, json_file, images)
    content, report = check_coco(
        read_coco(json_file),
        json_file,
        images,
        masks=masks,
        mask_format=mask_format,
        for_evaluation=for_evaluation,
        images_outside=images_outside,
    )
    report.raise_errors()
    registered = json_file
    if report.mended:
        if output_dir is None:
            raise ValueError(
                f"{report}\nNo copy was written: say where, by output_dir (datasets.*.output_dir)"
            )
        registered = str(_write_mended(content, name, json_file, output_dir))
        if comm.is_main_process():
            logging.getLogger(__name__).warning(f"{report}\nThe copy is {registered}")
    claim(name, json_file, images)
    register_coco_instances(name, {}, registered, images)
    MetadataCatalog.get(name).thing_classes = class_names_of(content)


def read_coco(json_file: str) -> dict:
    """The content of a COCO-format file; of its parts, only that they are there is checked."""
    try:
        content = json.loads(Path(json_file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"JSON {json_file!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"JSON {json_file!r} is not JSON: {error}") from error
    absent = [
        part
        for part in PARTS
        if not isinstance(content, dict) or not isinstance(content.get(part), list)
    ]
    if absent:
        raise ValueError(f"JSON {json_file!r} is not COCO-format: no list of {', '.join(absent)}")
    return content


def class_names_of(content: dict) -> list[str]:
    """Class names in the order of the category ids, which is that of the model's outputs."""
    by_id = sorted(content["categories"], key=lambda category: category["id"])
    return [category["name"] for category in by_id]


def _write_mended(content: dict, name: str, json_file: str, output_dir: str) -> Path:
    """Write the mended copy; several processes may do so at once, with equal content.

    Raises:
        ValueError: another file is in the way.
    """
    target = Path(output_dir, "datasets", f"{name}.json")
    start = f'{{"{MARK}": '
    if target.exists():
        with target.open(encoding="utf-8", errors="replace") as file:
            if file.read(len(start)) != start:
                raise ValueError(
                    f"{target} is in the way, where the mended copy of {json_file} shall be: "
                    "move it, or choose another OUTPUT_DIR"
                )
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        unfinished.write_text(json.dumps({MARK: json_file} | content), encoding="utf-8")
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target
