"""A user's own dataset, from config keys alone (``DATASETS.CUSTOM``): COCO-format or semantic."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from swinv2_backbone.d2.data.datasets.coco import class_names_of, read_coco, register_coco
from swinv2_backbone.d2.data.datasets.semantic import read_names, register_semantic

SEMANTIC = "SemanticSegmentor"  # the MODEL.META_ARCHITECTURE that learns from LABELS
# Where a model's number of classes stands, if not in MODEL.ROI_HEADS.
HEADS = {"RetinaNet": "RETINANET", SEMANTIC: "SEM_SEG_HEAD"}


def register_custom_datasets(cfg: CfgNode, splits: tuple[str, ...] = ("TRAIN", "TEST")) -> CfgNode:
    """Check and register the datasets of ``cfg.DATASETS.CUSTOM``.

    Returns:
        A copy of ``cfg`` that selects them.

    A split is either COCO-format (``JSON`` and ``IMAGES``) or semantic (``LABELS`` and ``IMAGES``,
    with ``DATASETS.CUSTOM.NAMES``).  ``DATASETS.TRAIN`` and ``DATASETS.TEST`` become the names of
    the datasets given, and empty where none is; ``DATASETS.CUSTOM.CLASSES`` their class names, in
    the order of the model's outputs.  Without any dataset among ``splits`` nothing changes.

    Raises:
        ValueError: files are missing or faulty (then all faults are told), the model learns from
            another kind of data or has another number of classes, or training and test disagree
            about the classes.
    """
    cfg = cfg.clone()
    cfg.defrost()
    custom = cfg.DATASETS.CUSTOM
    if not any([_is_given(cfg, split) for split in splits]):  # all of them checked
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


def _is_given(cfg: CfgNode, split: str) -> bool:
    """Whether there is a dataset for the split; keys that do not go together raise ValueError."""
    custom, key = cfg.DATASETS.CUSTOM, f"DATASETS.CUSTOM.{split}"
    node, architecture = custom[split], cfg.MODEL.META_ARCHITECTURE
    if node.JSON and node.LABELS:
        raise ValueError(
            f"{key}.JSON and {key}.LABELS are both given: a dataset is either one of objects or a "
            "semantic one (register a panoptic one in Python)"
        )
    if node.JSON and custom.NAMES:
        raise ValueError(
            f"DATASETS.CUSTOM.NAMES {custom.NAMES!r} goes with LABELS; the class names of "
            f"{key}.JSON are its categories"
        )
    if node.IMAGES and not (node.JSON or node.LABELS):
        raise ValueError(
            f"{key}.IMAGES {node.IMAGES!r} needs {key}.JSON (objects, COCO-format) or "
            f"{key}.LABELS (a folder of semantic labels)"
        )
    if node.LABELS and architecture != SEMANTIC:
        raise ValueError(
            f"{key}.LABELS are for MODEL.META_ARCHITECTURE {SEMANTIC}, not {architecture}"
        )
    if node.JSON and architecture in (SEMANTIC, "PanopticFPN"):
        needed = f"{key}.LABELS" if architecture == SEMANTIC else "a dataset registered in Python"
        raise ValueError(
            f"MODEL.META_ARCHITECTURE {architecture} cannot learn from {key}.JSON: give {needed}"
        )
    if node.LABELS and not custom.NAMES:
        raise ValueError(
            f"{key}.LABELS need DATASETS.CUSTOM.NAMES, a text file with one class name a line"
        )
    return bool(node.JSON or node.LABELS)


def _register(cfg: CfgNode, split: str) -> list[str]:
    """Register one split; returns its class names."""
    node, names_file = cfg.DATASETS.CUSTOM[split], cfg.DATASETS.CUSTOM.NAMES
    try:
        if node.LABELS:
            # The number of classes first, as looking through the files may take minutes.
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

    Of a ``PanopticFPN``, the classes are those of its objects.
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
    """The names of the model's classes: of ``DATASETS.CUSTOM``, or of the first test dataset.

    Raises:
        ValueError: neither knows any, or the model has another number of classes.
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
    """Where class names are found first, and the names; none if nowhere."""
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
