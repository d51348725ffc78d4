"""Datasets of the user that config keys alone describe (``DATASETS.CUSTOM``)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from swinv2_backbone.d2.data.datasets.classes import quoted
from swinv2_backbone.d2.data.datasets.coco import class_names_in, makes_bitmaps, register_coco
from swinv2_backbone.d2.data.datasets.semantic import read_names, register_semantic
from swinv2_backbone.d2.data.loading.bands import bands_of
from swinv2_backbone.d2.data.validation.report import counted
from swinv2_backbone.d2.modeling.architectures import kind_of

SEMANTIC = "SemanticSegmentor"  # the MODEL.META_ARCHITECTURE that learns from LABELS
# Meta-architecture -> node with its number of classes, if that is not MODEL.ROI_HEADS.
HEADS = {"RetinaNet": "RETINANET", SEMANTIC: "SEM_SEG_HEAD"}


class ClassNames(NamedTuple):
    """Class names in the order of the model's outputs.

    ``of_model`` is False if they come from a test set, so that the model may have others.
    """

    source: str
    names: list[str]
    of_model: bool = True


def register_custom_datasets(cfg: CfgNode, splits: tuple[str, ...] = ("TRAIN", "TEST")) -> CfgNode:
    """Check and register the datasets of ``cfg.DATASETS.CUSTOM``; ``cfg`` is not changed.

    A split is either one of objects (``JSON`` and ``IMAGES``, of any ``FORMAT``) or semantic
    (``LABELS`` and ``IMAGES``, with ``DATASETS.CUSTOM.NAMES``). The classes of a test set of
    objects are matched by name with those of the training set. Without a training set among
    ``splits``, they are matched with ``DATASETS.CUSTOM.CLASSES`` if that is given, else with
    ``TRAIN.JSON`` if that exists.

    Returns:
        A copy of ``cfg`` in which ``DATASETS.TRAIN`` and ``DATASETS.TEST`` are the names of the
        datasets (empty for a split without one), and ``DATASETS.CUSTOM.CLASSES`` their class names
        in the order of the model's outputs. Without any dataset among ``splits``, an equal copy.

    Raises:
        ValueError: keys do not go together, files are missing or faulty (the message lists all
            faults), the model learns from another kind of data or has another number of classes,
            or the test set has a class that the training set does not have.
    """
    cfg = cfg.clone()
    cfg.defrost()
    custom = cfg.DATASETS.CUSTOM
    if faults := [fault for split in splits for fault in _conflicts(cfg, split)]:
        raise ValueError("\n".join(faults))
    if not any(custom[split].JSON or custom[split].LABELS for split in splits):
        return cfg
    known = None if "TRAIN" in splits else _trained_classes(cfg)
    _set_mask_format(cfg)
    for split in splits:
        node = custom[split]
        cfg.DATASETS[split] = ()
        if node.JSON or node.LABELS:
            known = _register(cfg, split, known)
            cfg.DATASETS[split] = (node.NAME,)
    assert known is not None  # a split is given
    custom.CLASSES = known.names
    return cfg


def _set_mask_format(cfg: CfgNode) -> None:
    """Select bitmaps if the objects' masks may become RLE; only these take it."""
    custom = cfg.DATASETS.CUSTOM
    if not (cfg.MODEL.MASK_ON and makes_bitmaps(custom.CROWDS, custom.HOLES)):
        return
    if cfg.INPUT.MASK_FORMAT != "bitmask":
        cfg.INPUT.MASK_FORMAT = "bitmask"
        log_bitmaps("INPUT.MASK_FORMAT")


def log_bitmaps(key: str) -> None:
    """Log that a key was set for masks that are read as bitmaps."""
    logging.getLogger(__name__).info(
        f"{key} is set to bitmask, because crowds are read as objects or polygons as holes"
    )


def _conflicts(cfg: CfgNode, split: str) -> Iterator[str]:
    """Report the keys of a split that do not go together, or not with the model."""
    custom, key = cfg.DATASETS.CUSTOM, f"DATASETS.CUSTOM.{split}"
    node, architecture = custom[split], cfg.MODEL.META_ARCHITECTURE
    kind = kind_of(architecture)
    if node.JSON and node.LABELS:
        yield (
            f"{key}.JSON and {key}.LABELS are both given: a dataset is either one of objects or a "
            "semantic one (register a panoptic one in Python)"
        )
    if node.JSON and custom.NAMES:
        yield (
            f"DATASETS.CUSTOM.NAMES {custom.NAMES!r} goes with LABELS; the class names of "
            f"{key}.JSON are its categories"
        )
    if node.IMAGES and not (node.JSON or node.LABELS):
        yield (
            f"{key}.IMAGES {node.IMAGES!r} needs {key}.JSON (objects, COCO-format) or "
            f"{key}.LABELS (a folder of semantic labels)"
        )
    if node.LABELS and kind not in (SEMANTIC, ""):
        yield (f"{key}.LABELS are for MODEL.META_ARCHITECTURE {SEMANTIC}, not {architecture}")
    if node.JSON and kind in (SEMANTIC, "PanopticFPN"):
        needed = f"{key}.LABELS" if kind == SEMANTIC else "a dataset registered in Python"
        yield (
            f"MODEL.META_ARCHITECTURE {architecture} cannot learn from {key}.JSON: give {needed}"
        )
    if node.LABELS and not custom.NAMES:
        yield (f"{key}.LABELS need DATASETS.CUSTOM.NAMES, a text file with one class name a line")


def _register(cfg: CfgNode, split: str, known: ClassNames | None) -> ClassNames:
    """Register one split, with the classes of the model if they are known; return them."""
    node = cfg.DATASETS.CUSTOM[split]
    register = _register_semantic if node.LABELS else _register_coco
    try:
        return register(cfg, split, known)
    except ValueError as error:
        raise ValueError(f"DATASETS.CUSTOM.{split}: {error}") from error


def _register_semantic(cfg: CfgNode, split: str, known: ClassNames | None) -> ClassNames:
    node, names_file = cfg.DATASETS.CUSTOM[split], cfg.DATASETS.CUSTOM.NAMES
    classes = ClassNames(names_file, read_names(names_file))
    if known and known.names != classes.names and sorted(known.names) == sorted(classes.names):
        raise ValueError(
            f"the classes of {names_file} ({quoted(classes.names)}) are in another order than "
            f"those of the model in {known.source} ({quoted(known.names)})"
        )
    # The number of classes first, because checking the files may take minutes.
    check_class_count(cfg, classes)
    ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    register_semantic(
        node.NAME,
        node.IMAGES,
        node.LABELS,
        names_file,
        ignored,
        for_evaluation=split == "TEST",
        bands=bands_of(cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN),
    )
    return classes


def _register_coco(cfg: CfgNode, split: str, known: ClassNames | None) -> ClassNames:
    node = cfg.DATASETS.CUSTOM[split]
    if known:
        check_class_count(cfg, known)
    register_coco(
        node.NAME,
        node.JSON,
        node.IMAGES,
        format=node.FORMAT,
        masks=cfg.MODEL.MASK_ON,
        mask_format=cfg.INPUT.MASK_FORMAT,
        output_dir=cfg.OUTPUT_DIR,
        for_evaluation=split == "TEST",
        images_outside=cfg.DATASETS.CUSTOM.IMAGES_OUTSIDE,
        bands=bands_of(cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN),
        crowds=cfg.DATASETS.CUSTOM.CROWDS,
        holes=cfg.DATASETS.CUSTOM.HOLES,
        cache=cfg.DATASETS.CUSTOM.CACHE,
        classes=known.names if known else None,
    )
    if known:
        return known
    names = MetadataCatalog.get(node.NAME).thing_classes
    classes = ClassNames(node.JSON, names, of_model=split == "TRAIN")
    check_class_count(cfg, classes)
    if not classes.of_model:
        warn_of_unknown_classes(node.JSON)
    return classes


def warn_of_unknown_classes(json_file: str) -> None:
    """Log that a test file's own classes are taken for those of the model."""
    logging.getLogger(__name__).warning(
        "The classes of the training are not known here: the model's outputs are taken to be the "
        f"classes of {json_file} in the order of their ids"
    )


def check_class_count(cfg: CfgNode, classes: ClassNames) -> None:
    """Raise ValueError unless the heads that ``cfg`` selects have one output for each class.

    The classes of a ``PanopticFPN`` are those of its objects. Another project's model may have its
    number of classes anywhere: if no key named NUM_CLASSES has it, this is only logged.
    """
    kind, count = kind_of(cfg.MODEL.META_ARCHITECTURE), len(classes.names)
    if not kind:
        _warn_of_another_count(cfg, classes)
        return
    node = HEADS.get(kind, "ROI_HEADS")
    configured = cfg.MODEL[node].NUM_CLASSES
    if configured == count:
        return
    remedy = f"set MODEL.{node}.NUM_CLASSES {count}"
    if not classes.of_model:
        remedy = (
            "the classes of the training decide: use the config.yaml of its OUTPUT_DIR, or set "
            "DATASETS.CUSTOM.CLASSES to their names in the order of the model's outputs"
        )
    raise ValueError(
        f"MODEL.{node}.NUM_CLASSES is {configured}, but {classes.source} has "
        f"{counted(count, 'class')} "
        f"({', '.join(classes.names[:10])}{', ...' if count > 10 else ''}); {remedy}"
    )


def _warn_of_another_count(cfg: CfgNode, classes: ClassNames) -> None:
    counts = [node.get("NUM_CLASSES") for node in cfg.MODEL.values() if isinstance(node, CfgNode)]
    if len(classes.names) not in counts:
        logging.getLogger(__name__).warning(
            f"{classes.source} has {counted(len(classes.names), 'class')}, but no "
            "MODEL.*.NUM_CLASSES has "
            f"this value: check the number of classes of {cfg.MODEL.META_ARCHITECTURE}"
        )


def class_names(cfg: CfgNode) -> list[str]:
    """Return the class names of the model: from ``DATASETS.CUSTOM``, or the first test dataset.

    Raises:
        ValueError: neither has class names, or the model has another number of classes.
    """
    classes = _trained_classes(cfg) or _tested_classes(cfg)
    if classes is None:
        raise ValueError(
            "the class names are not known: use the config.yaml of the training's "
            "OUTPUT_DIR, or give DATASETS.CUSTOM.TEST.JSON (of a semantic model, "
            "DATASETS.CUSTOM.NAMES)"
        )
    check_class_count(cfg, classes)
    return classes.names


def _trained_classes(cfg: CfgNode) -> ClassNames | None:
    """Return the classes that the model was trained on; None if the config does not tell."""
    custom = cfg.DATASETS.CUSTOM
    if custom.CLASSES:
        return ClassNames("DATASETS.CUSTOM.CLASSES", list(custom.CLASSES))
    kind = kind_of(cfg.MODEL.META_ARCHITECTURE)
    if custom.NAMES and kind in (SEMANTIC, ""):
        return ClassNames(custom.NAMES, read_names(custom.NAMES))
    if kind == SEMANTIC:
        return None
    source = custom.TRAIN.JSON
    if source and Path(source).exists():
        return ClassNames(source, _names_in(custom.TRAIN, for_evaluation=False))
    return None


def _tested_classes(cfg: CfgNode) -> ClassNames | None:
    """Return the classes of the first test dataset."""
    kind, source = kind_of(cfg.MODEL.META_ARCHITECTURE), cfg.DATASETS.CUSTOM.TEST.JSON
    semantic = kind == SEMANTIC
    if source and not semantic:
        names = _names_in(cfg.DATASETS.CUSTOM.TEST, for_evaluation=True)
        return ClassNames(source, names, of_model=False)
    for name in cfg.DATASETS.TEST[:1]:
        metadata = MetadataCatalog.get(name)
        fields = ["stuff_classes" if semantic else "thing_classes"]
        fields += [] if kind else ["stuff_classes"]  # another project's model may have either
        found = [names for field in fields if (names := metadata.get(field))]
        return ClassNames(name, list(found[0])) if found else None
    return None


def _names_in(node: CfgNode, for_evaluation: bool) -> list[str]:
    return class_names_in(node.JSON, node.IMAGES, node.FORMAT, for_evaluation)
