"""A user's own COCO-format dataset, registered in Detectron2 after a check and repairs."""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.utils import comm

from swinv2_backbone.d2.data.datasets.catalog import claim, require_free
from swinv2_backbone.d2.data.datasets.classes import class_names_of, match_classes
from swinv2_backbone.d2.data.datasets.converted import coco_content_of, coco_file_of
from swinv2_backbone.d2.data.validation.annotations import HOLE_MODES
from swinv2_backbone.d2.data.validation.categories import check_categories
from swinv2_backbone.d2.data.validation.coco import check_coco
from swinv2_backbone.d2.data.validation.crowds import CROWD_MODES
from swinv2_backbone.d2.data.validation.report import Report

PARTS = ("images", "annotations", "categories")
# The first key of a repaired copy, which tells our files from those of the user.
MARK = "mended_copy_of"


def register_coco(
    name: str,
    json_file: str,
    images: str = "",
    *,
    format: str = "auto",
    masks: bool = True,
    mask_format: str = "polygon",
    output_dir: str | None = None,
    for_evaluation: bool = False,
    images_outside: bool = False,
    bands: int | None = None,
    crowds: str = "check",
    holes: str = "fill",
    classes: Sequence[str] | None = None,
) -> None:
    """Check a dataset in COCO's format, and register it in Detectron2 under ``name``.

    Faults with one obvious remedy are repaired in a copy, ``output_dir/datasets/NAME.json``, which
    is registered instead of ``json_file``; every repair is logged. A second call with the same name
    and files reads and registers them again.

    Args:
        name: name for the registration.
        json_file: the annotations: a file in COCO's format, or a file or folder of another one.
        images: the folder that the file names in ``json_file`` are relative to; "": the place
            where the format has them.
        format: the format of the annotations, one of
            ``swinv2_backbone.d2.data.formats.conversion.NAMES``; "auto": found out. Formats other
            than COCO's are converted to ``output_dir/datasets/NAME_from_FORMAT.json``.
        masks: a model with masks will use the dataset.
        mask_format: "polygon" or "bitmask", which also accepts RLE; as in ``INPUT.MASK_FORMAT``.
        output_dir: folder for a repaired copy; without it, a fault to repair is an error.
        for_evaluation: the dataset is for evaluation, which needs more keys than training.
        images_outside: file names may lead out of the folder of images.
        bands: number of bands that each image must have, for images of the format "BANDS"; None:
            RGB images.
        crowds: meaning of ``iscrowd`` 1. "check": a crowd as in COCO, which is neither trained on
            nor scored; an implausible share of them is an error. "ignore": the same without this
            error. "objects": a single object.
        holes: meaning of a polygon inside another one of the same object: "fill", as in COCO, a
            part without effect; "subtract": a hole. This and ``crowds`` "objects" make the
            ``mask_format`` "bitmask", which the mapper must have, too.
        classes: the class names of the model, in the order of its outputs. The categories are
            matched with them by name: other ids, another order, or absent classes are repaired in
            the copy. None: the file's own names in the order of their ids.

    Raises:
        ValueError: the files cannot be used; the message lists every fault. Or ``name`` belongs to
            another dataset.
    """
    if mask_format not in ("polygon", "bitmask"):
        raise ValueError(f"mask_format must be polygon or bitmask, got {mask_format!r}")
    for key, value, allowed in (("crowds", crowds, CROWD_MODES), ("holes", holes, HOLE_MODES)):
        if value not in allowed:
            raise ValueError(f"{key} must be one of {', '.join(allowed)}, got {value!r}")
    source = (str(json_file), str(images))
    require_free(name, *source)
    json_file, images = coco_file_of(
        *source, name=name, format=format, for_evaluation=for_evaluation, output_dir=output_dir
    )
    content, report = check_coco(
        read_coco(json_file),
        json_file,
        images,
        masks=masks,
        mask_format="bitmask" if makes_bitmaps(crowds, holes) else mask_format,
        for_evaluation=for_evaluation,
        images_outside=images_outside,
        bands=bands,
        crowds=crowds,
        holes=holes,
    )
    if classes is not None:
        content = match_classes(content, list(classes), report)
    report.raise_errors()
    registered = _file_to_register(content, report, name, json_file, output_dir)
    claim(name, *source)
    register_coco_instances(name, {}, registered, images)
    MetadataCatalog.get(name).set(
        thing_classes=class_names_of(content),
        image_files=[os.path.join(images, entry["file_name"]) for entry in content["images"]],
    )


def makes_bitmaps(crowds: str, holes: str) -> bool:
    """Return True if the masks of a dataset that is read in this way need bitmaps."""
    return crowds == "objects" or holes == "subtract"


def _file_to_register(
    content: dict, report: Report, name: str, json_file: str, output_dir: str | None
) -> str:
    """Return the file itself, or that of the repaired copy, which is written and logged."""
    if not report.repaired:
        if report.notes and comm.is_main_process():
            logging.getLogger(__name__).info(str(report))
        return json_file
    if output_dir is None:
        raise ValueError(
            f"{report}\nNo copy was written: give its folder as output_dir (datasets.*.output_dir)"
        )
    copy = str(_write_repaired(content, name, json_file, output_dir))
    if comm.is_main_process():
        logging.getLogger(__name__).warning(f"{report}\nThe copy is {copy}")
    return copy


def read_coco(json_file: str) -> dict:
    """Read a COCO-format file; raise ValueError unless it has the three lists of the format."""
    try:
        content = json.loads(Path(json_file).read_text(encoding="utf-8-sig"))
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


def class_names_in(
    json_file: str, images: str = "", format: str = "auto", for_evaluation: bool = False
) -> list[str]:
    """Return the class names that ``register_coco`` would give a dataset, without checking it."""
    content = coco_content_of(json_file, images, format, for_evaluation)
    entries = (entry for entry in content["annotations"] if isinstance(entry, dict))
    used = [entry.get("category_id") for entry in entries]
    report = Report(json_file)
    categories = check_categories(content["categories"], used, report)
    report.raise_errors()
    return class_names_of({"categories": categories})


def _write_repaired(content: dict, name: str, json_file: str, output_dir: str) -> Path:
    """Write the repaired copy; several processes may do so at once, with equal content.

    Raises:
        ValueError: a file of the user is in the way.
    """
    target = Path(output_dir, "datasets", f"{name}.json")
    start = f'{{"{MARK}": '
    if target.exists():
        with target.open(encoding="utf-8", errors="replace") as file:
            if file.read(len(start)) != start:
                raise ValueError(
                    f"{target} is in the way of the repaired copy of {json_file}: move it, or "
                    "choose another OUTPUT_DIR (output_dir)"
                )
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        unfinished.write_text(json.dumps({MARK: json_file} | content), encoding="utf-8")
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target
