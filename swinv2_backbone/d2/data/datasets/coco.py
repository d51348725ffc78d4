"""A user's own COCO-format dataset, registered in Detectron2 after a check and repairs."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

from swinv2_backbone.d2.data.datasets.catalog import claim, require_free
from swinv2_backbone.d2.data.datasets.checked import checked_file
from swinv2_backbone.d2.data.datasets.classes import class_names_of
from swinv2_backbone.d2.data.datasets.converted import coco_file_of, coco_source_of
from swinv2_backbone.d2.data.storage.records import Records
from swinv2_backbone.d2.data.validation.annotations import HOLE_MODES
from swinv2_backbone.d2.data.validation.categories import check_categories
from swinv2_backbone.d2.data.validation.crowds import CROWD_MODES
from swinv2_backbone.d2.data.validation.report import Report
from swinv2_backbone.d2.data.validation.source import used_categories


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
    cache: str = "",
) -> None:
    """Check a dataset in COCO's format, and register it in Detectron2 under ``name``.

    Faults with one obvious remedy are repaired in a copy, ``output_dir/datasets/NAME.json``, which
    is registered instead of ``json_file``; every repair is logged. Of several processes on a
    machine, one checks. A second call with the same name and files registers them again.

    Args:
        name: name for the registration.
        json_file: the annotations: a file in COCO's format, or a file or folder of another one.
        images: the folder that the file names in ``json_file`` are relative to; "": where the
            format puts them.
        format: the format of the annotations, one of
            ``swinv2_backbone.d2.data.formats.conversion.NAMES``; "auto": detected. Formats other
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
        holes: meaning of a polygon inside another one of the same object. "fill": a part without
            effect, as in COCO. "subtract": a hole. "subtract" and ``crowds`` "objects" change
            ``mask_format`` to "bitmask", which the mapper must use, too.
        classes: the class names of the model, in the order of its outputs. The categories are
            matched with them by name: other ids, another order, or absent classes are repaired in
            the copy. None: the file's own names in the order of their ids.
        cache: folder that keeps the result of the check, so that the next start with unchanged
            files takes seconds; "": ``output_dir/datasets/cache``.

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
    json_file, images, first_pixel = coco_file_of(
        *source, name=name, format=format, for_evaluation=for_evaluation, output_dir=output_dir
    )
    found = checked_file(
        name,
        json_file,
        images,
        output_dir=output_dir,
        cache=cache,
        classes=classes,
        masks=masks,
        mask_format="bitmask" if makes_bitmaps(crowds, holes) else mask_format,
        for_evaluation=for_evaluation,
        images_outside=images_outside,
        bands=bands,
        crowds=crowds,
        holes=holes,
    )
    claim(name, *source)
    records = Records(images, found.arrays)
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(
        evaluator_type="coco",
        json_file=found.json_file,
        image_root=images,
        image_files=records.files(),
        first_pixel=first_pixel,
        thing_classes=[class_name for _, class_name in found.categories],
        thing_dataset_id_to_contiguous_id={
            key: row for row, (key, _) in enumerate(found.categories)
        },
    )


def makes_bitmaps(crowds: str, holes: str) -> bool:
    """Return True if the masks of a dataset that is read in this way need bitmaps."""
    return crowds == "objects" or holes == "subtract"


def class_names_in(
    json_file: str, images: str = "", format: str = "auto", for_evaluation: bool = False
) -> list[str]:
    """Return the class names that ``register_coco`` would give a dataset, without checking it."""
    content = coco_source_of(json_file, images, format, for_evaluation)
    report = Report(json_file)
    categories = check_categories(content["categories"], used_categories(content), report)
    report.raise_errors()
    return class_names_of({"categories": categories})
