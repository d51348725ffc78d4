"""Datasets of the user that config keys alone describe (``DATASETS.CUSTOM``)."""

from __future__ import annotations

from collections.abc import Iterator

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from swinv2_backbone.d2.data.datasets.coco import class_names_of, read_coco, register_coco
from swinv2_backbone.d2.data.datasets.semantic import read_names, register_semantic

SEMANTIC = "SemanticSegmentor"  # the MODEL.META_ARCHITECTURE that learns from LABELS
# Meta-architecture -> node with its number of classes, if that is not MODEL.ROI_HEADS.
HEADS = {"RetinaNet": "RETINANET", SEMANTIC: "SEM_SEG_HEAD"}


def register_custom_datasets(cfg: CfgNode, splits: tuple[str, ...] = ("TRAIN", "TEST")) -> CfgNode:
    """Check and register the datasets of ``cfg.DATASETS.CUSTOM``; ``cfg`` is not changed.

    A split is either COCO-format (``JSON`` and ``IMAGES``) or semantic (``LABELS`` and ``IMAGES``,
    with ``DATASETS.CUSTOM.NAMES``).

    Returns:
        A copy of ``cfg`` in which ``DATASETS.TRAIN`` and ``DATASETS.TEST`` are the names of the
        datasets (empty for a split without one), and ``DATASETS.CUSTOM.CLASSES`` their class names
        in the order of the model's outputs. Without any dataset among ``splits``, an equal copy.

    Raises:
        ValueError: keys do not go together, files are missing or faulty (the message lists all
            faults), the model learns from another kind of data or has another number of classes,
            or training and test set have different classes.
    """
    cfg = cfg.clone()
    cfg.defrost()
    custom = cfg.DATASETS.CUSTOM
    if faults := [fault for split in splits for fault in _conflicts(cfg, split)]:
        raise ValueError("\n".join(faults))
    if not any(custom[split].JSON or custom[split].LABELS for split in splits):
        return cfg
    known: tuple[str, list[str]] | None = None
    for split in splits:
        node = custom[split]
        cfg.DATASETS[split] = ()
        if not (node.JSON or node.LABELS):
            continue
        classes = _register(cfg, split)
        source = node.JSON or custom.NAMES
        if known and known[1] != classes:
            raise ValueError(
                f"the classes of {source} ({', '.join(classes)}) are not those "
                f"of {known[0]} ({', '.join(known[1])})"
            )
        known = (source, classes)
        cfg.DATASETS[split] = (node.NAME,)
    assert known is not None  # a split is given
    custom.CLASSES = known[1]
    return cfg


def _conflicts(cfg: CfgNode, split: str) -> Iterator[str]:
    """Report the keys of a split that do not go together, or not with the model."""
    custom, key = cfg.DATASETS.CUSTOM, f"DATASETS.CUSTOM.{split}"
    node, architecture = custom[split], cfg.MODEL.META_ARCHITECTURE
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
    if node.LABELS and architecture != SEMANTIC:
        yield (f"{key}.LABELS are for MODEL.META_ARCHITECTURE {SEMANTIC}, not {architecture}")
    if node.JSON and architecture in (SEMANTIC, "PanopticFPN"):
        needed = f"{key}.LABELS" if architecture == SEMANTIC else "a dataset registered in Python"
        yield (
            f"MODEL.META_ARCHITECTURE {architecture} cannot learn from {key}.JSON: give {needed}"
        )
    if node.LABELS and not custom.NAMES:
        yield (f"{key}.LABELS need DATASETS.CUSTOM.NAMES, a text file with one class name a line")


def _register(cfg: CfgNode, split: str) -> list[str]:
    """Register one split; returns its class names."""
    node, names_file = cfg.DATASETS.CUSTOM[split], cfg.DATASETS.CUSTOM.NAMES
    try:
        if node.LABELS:
            # The number of classes first, because checking the files may take minutes.
            check_class_count(cfg, read_names(names_file), names_file)
            ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
            register_semantic(node.NAME, node.IMAGES, node.LABELS, names_file, ignored)
            return MetadataCatalog.get(node.NAME).stuff_classes
        register_coco(
            node.NAME,
            node.JSON,
            node.IMAGES,
            masks=cfg.MODEL.MASK_ON,
            mask_format=cfg.INPUT.MASK_FORMAT,
            output_dir=cfg.OUTPUT_DIR,
            for_evaluation=split == "TEST",
            images_outside=cfg.DATASETS.CUSTOM.IMAGES_OUTSIDE,
        )
    except ValueError as error:
        raise ValueError(f"DATASETS.CUSTOM.{split}: {error}") from error
    classes = MetadataCatalog.get(node.NAME).thing_classes
    check_class_count(cfg, classes, node.JSON)
    return classes


def check_class_count(cfg: CfgNode, classes: list[str], source: str) -> None:
    """Raise ValueError unless the heads that ``cfg`` selects have one output for each class.

    The classes of a ``PanopticFPN`` are those of its objects.
    """
    node = HEADS.get(cfg.MODEL.META_ARCHITECTURE, "ROI_HEADS")
    configured = cfg.MODEL[node].NUM_CLASSES
    if configured != len(classes):
        raise ValueError(
            f"MODEL.{node}.NUM_CLASSES is {configured}, but {source} has "
            f"{len(classes)} classes ({', '.join(classes[:10])}"
            f"{', ...' if len(classes) > 10 else ''}); "
            f"set MODEL.{node}.NUM_CLASSES {len(classes)}"
        )


def class_names(cfg: CfgNode) -> list[str]:
    """Return the class names of the model: from ``DATASETS.CUSTOM``, or the first test dataset.

    Raises:
        ValueError: neither has class names, or the model has another number of classes.
    """
    source, names = _known_names(cfg)
    if not names:
        raise ValueError(
            "the class names are not known: use the config.yaml of the training's "
            "OUTPUT_DIR, or give DATASETS.CUSTOM.TEST.JSON (of a semantic model, "
            "DATASETS.CUSTOM.NAMES)"
        )
    check_class_count(cfg, names, source)
    return names


def _known_names(cfg: CfgNode) -> tuple[str, list[str]]:
    """Return the first source of class names and the names; none if there is no source."""
    custom = cfg.DATASETS.CUSTOM
    if custom.CLASSES:
        return "DATASETS.CUSTOM.CLASSES", list(custom.CLASSES)
    semantic = cfg.MODEL.META_ARCHITECTURE == SEMANTIC
    if semantic and custom.NAMES:
        return custom.NAMES, read_names(custom.NAMES)
    for split in ("TEST", "TRAIN"):
        if custom[split].JSON and not semantic:
            return custom[split].JSON, class_names_of(read_coco(custom[split].JSON))
    for name in cfg.DATASETS.TEST[:1]:
        kind = "stuff_classes" if semantic else "thing_classes"
        return name, list(MetadataCatalog.get(name).get(kind, ()))
    return "", []
