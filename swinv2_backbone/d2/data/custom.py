"""A user's own COCO-format dataset, from config keys alone (``DATASETS.CUSTOM``)."""

from __future__ import annotations

import json
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

EVALUATED = ("iscrowd", "area")


def register_custom_datasets(cfg: CfgNode, splits: tuple[str, ...] = ("TRAIN", "TEST")) -> None:
    """Register what ``cfg.DATASETS.CUSTOM`` describes, and select it for training and testing.

    ``DATASETS.TRAIN`` and ``DATASETS.TEST`` become the name of the dataset whose JSON is given,
    and empty where none is; ``DATASETS.CUSTOM.CLASSES`` its class names, in the order of the
    category ids.  Without any JSON among ``splits`` nothing changes.

    Raises:
        ValueError: a file is missing, is not COCO-format, its images are not there, training and
            test disagree about the classes, or the model has another number of classes.
    """
    custom = cfg.DATASETS.CUSTOM
    known: tuple[str, list[str]] | None = None
    if not any(custom[split].JSON for split in splits):
        return
    for split in splits:
        node = custom[split]
        cfg.DATASETS[split] = ()
        if not node.JSON:
            continue
        # What pycocotools reads in evaluation, beyond what training needs.
        keys = EVALUATED if split == "TEST" else ()
        classes = _register(node.NAME, node.JSON, node.IMAGES, f"DATASETS.CUSTOM.{split}", keys)
        if known and known[1] != classes:
            raise ValueError(
                f"the categories of {node.JSON} ({', '.join(classes)}) are not those "
                f"of {known[0]} ({', '.join(known[1])})"
            )
        known = (node.JSON, classes)
        cfg.DATASETS[split] = (node.NAME,)
    custom.CLASSES = known[1]
    check_class_count(cfg, known[1], known[0])


def check_class_count(cfg: CfgNode, classes: list[str], source: str) -> None:
    """Raise ValueError unless the heads that ``cfg`` selects have one output for each class."""
    retinanet = cfg.MODEL.META_ARCHITECTURE == "RetinaNet"
    node = "RETINANET" if retinanet else "ROI_HEADS"
    configured = cfg.MODEL[node].NUM_CLASSES
    if configured != len(classes):
        raise ValueError(
            f"MODEL.{node}.NUM_CLASSES is {configured}, but {source} has "
            f"{len(classes)} classes ({', '.join(classes[:10])}"
            f"{', ...' if len(classes) > 10 else ''}); "
            f"set MODEL.{node}.NUM_CLASSES {len(classes)}"
        )


def check_masks(cfg: CfgNode) -> None:
    """Raise ValueError if a training dataset of ``DATASETS.CUSTOM`` cannot feed the mask head."""
    if not cfg.MODEL.MASK_ON or not cfg.DATASETS.CUSTOM.TRAIN.JSON:
        return
    for annotation in _read(cfg.DATASETS.CUSTOM.TRAIN.JSON, "DATASETS.CUSTOM.TRAIN")["annotations"]:
        where = f"annotation {annotation.get('id')} of {cfg.DATASETS.CUSTOM.TRAIN.JSON}"
        if annotation.get("iscrowd"):
            continue  # Detectron2 does not train on crowds
        mask = annotation.get("segmentation")
        if not mask:
            raise ValueError(
                f"{where} has no segmentation; to train without masks, set MODEL.MASK_ON False"
            )
        if isinstance(mask, dict) and cfg.INPUT.MASK_FORMAT == "polygon":
            raise ValueError(f"{where} is an RLE mask; set INPUT.MASK_FORMAT bitmask")


def _register(
    name: str, json_file: str, images: str, key: str, annotation_keys: tuple[str, ...]
) -> list[str]:
    """Register one dataset under ``name``; returns its class names."""
    content = _read(json_file, key)
    if not content["categories"]:
        raise ValueError(f"{json_file} has no categories")
    _check_keys(content, json_file, annotation_keys)
    if not Path(images).is_dir():
        raise ValueError(f"{key}.IMAGES {images!r} is not a folder")
    missing = [
        image["file_name"]
        for image in content["images"]
        if not Path(images, image["file_name"]).is_file()
    ]
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(content['images'])} images of {json_file} "
            f"are not in {key}.IMAGES {images!r}, the first: {missing[0]!r}"
        )
    classes = _classes(content)
    if name in DatasetCatalog:
        if MetadataCatalog.get(name).get("json_file") == json_file:
            return classes
        raise ValueError(f"{key}.NAME {name!r} is the name of another dataset; choose a new one")
    register_coco_instances(name, {}, json_file, images)
    MetadataCatalog.get(name).thing_classes = classes
    return classes


def _check_keys(content: dict, json_file: str, annotation_keys: tuple[str, ...]) -> None:
    """Raise ValueError for an entry that lacks a key, or names an image or class there is not."""
    for part, keys in (
        ("images", ("id", "file_name", "height", "width")),
        ("categories", ("id", "name")),
        ("annotations", ("id", "image_id", "category_id", "bbox", *annotation_keys)),
    ):
        for number, entry in enumerate(content[part]):
            absent = [key for key in keys if key not in entry]
            if absent:
                raise ValueError(
                    f"{part}[{number}] of {json_file} (id {entry.get('id')}) has no "
                    f"{', '.join(absent)}"
                )
    images = {image["id"] for image in content["images"]}
    categories = {category["id"] for category in content["categories"]}
    for annotation in content["annotations"]:
        for key, known in (("image_id", images), ("category_id", categories)):
            if annotation[key] not in known:
                raise ValueError(
                    f"annotation {annotation['id']} of {json_file} has the unknown {key} "
                    f"{annotation[key]!r}"
                )


def _read(json_file: str, key: str) -> dict:
    try:
        content = json.loads(Path(json_file).read_text())
    except OSError as error:
        raise ValueError(f"{key}.JSON {json_file!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{key}.JSON {json_file!r} is not JSON: {error}") from error
    absent = [
        part
        for part in ("images", "annotations", "categories")
        if not isinstance(content, dict) or part not in content
    ]
    if absent:
        raise ValueError(f"{key}.JSON {json_file!r} is not COCO-format: no {', '.join(absent)}")
    return content


def class_names(cfg: CfgNode) -> list[str]:
    """The names of the model's classes: of ``DATASETS.CUSTOM``, or of the first test dataset.

    Raises:
        ValueError: neither knows any, or the model has another number of classes.
    """
    custom = cfg.DATASETS.CUSTOM
    source, names = "DATASETS.CUSTOM.CLASSES", list(custom.CLASSES)
    for split in ("TEST", "TRAIN"):
        if not names and custom[split].JSON:
            source, names = (
                custom[split].JSON,
                _classes(_read(custom[split].JSON, f"DATASETS.CUSTOM.{split}")),
            )
    if not names and cfg.DATASETS.TEST:
        source = cfg.DATASETS.TEST[0]
        names = list(MetadataCatalog.get(source).get("thing_classes", ()))
    if not names:
        raise ValueError(
            "the class names are not known: use the config.yaml of the training's "
            "OUTPUT_DIR, or give DATASETS.CUSTOM.TEST.JSON"
        )
    check_class_count(cfg, names, source)
    return names


def _classes(content: dict) -> list[str]:
    """Class names in the order of the category ids, which is that of the model's outputs."""
    by_id = sorted(content["categories"], key=lambda category: category["id"])
    return [category["name"] for category in by_id]
