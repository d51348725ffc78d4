"""The rows of the tables: recipes, and the published numbers to compare them with.

Published numbers are those of the configs' headers and of ``swinv2_backbone.variants``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from swinv2_backbone.variants import RELEASES

METRICS = {  # title -> its place in a training's results.json
    "box AP": ("bbox", "AP"),
    "mask AP": ("segm", "AP"),
    "mIoU": ("sem_seg", "mIoU"),
}


@dataclass(frozen=True)
class Row:
    """A published number, and the recipe or model that is compared with it.

    Attributes:
        name: Unique; the recipe's name for a recipe without changes.
        recipe: A config of ``configs/``; for ImageNet, a variant.
        metrics: Titles of the metrics that are reported.
        published: The numbers by title.
        of: Their model, in the words of the config's header.
        changes: ``KEY VALUE ...``, if the number belongs to a variation of the recipe.
        augmented: True if the number is that of test-time augmentation.
    """

    name: str
    recipe: str
    metrics: tuple[str, ...]
    published: Mapping[str, float]
    of: str
    changes: tuple[str, ...] = ()
    augmented: bool = False


PAPER = "the paper's"  # followed by the model
BOX, BOTH = ("box AP",), ("box AP", "mask AP")
WINDOW_32 = ("MODEL.SWINV2.WINDOW_SIZE", "32")


def _boxes(recipe: str, box: float, mask: float, of: str) -> Row:
    return Row(recipe, recipe, BOTH, {"box AP": box, "mask AP": mask}, of)


def _semantic(recipe: str, miou: float, of: str) -> Row:
    return Row(recipe, recipe, ("mIoU",), {"mIoU": miou}, of)


def _top1(variant: str) -> Row:
    release = RELEASES[variant]
    assert release.top1 is not None and release.top5 is not None
    published = {"top-1": release.top1, "top-5": release.top5}
    return Row(variant, variant, ("top-1", "top-5"), published, "mmpretrain, with the same weights")


CASCADE, UPERNET = "cascade_mask_rcnn_swinv2", "upernet_swinv2"

SUITES: dict[str, tuple[Row, ...]] = {
    "coco": (
        _boxes("mask_rcnn_swinv2", 46.0, 41.6, "Microsoft's Swin V1-T"),
        _boxes("mask_rcnn_swinv2_small", 48.5, 43.3, "Microsoft's Swin V1-S"),
        Row(f"{CASCADE}_tiny", f"{CASCADE}_tiny", BOTH, {"box AP": 51.1}, f"{PAPER} SwinV2-T"),
        Row(
            f"{CASCADE}_tiny_window32",
            f"{CASCADE}_tiny",
            BOTH,
            {"box AP": 51.8},
            f"{PAPER} SwinV2-T",
            WINDOW_32,
        ),
        _boxes(f"{CASCADE}_small", 51.9, 45.0, "Microsoft's Swin V1-S"),
        _boxes(f"{CASCADE}_base", 51.9, 45.0, "Microsoft's Swin V1-B from ImageNet-1k"),
        _boxes(f"{CASCADE}_large", 55.0, 47.2, "Detectron2's Swin V1-L"),
        Row(
            "retinanet_swinv2_tiny",
            "retinanet_swinv2_tiny",
            BOX,
            {"box AP": 44.8},
            "a public Detectron2 project with SwinV2-T",
        ),
        Row(
            "mask_transformer_swinv2_tiny",
            "mask_transformer_swinv2_tiny",
            ("mask AP",),
            {"mask AP": 45.0},
            "Mask2Former with Swin V1-T",
        ),
    ),
    "ade20k": (
        _semantic(f"{UPERNET}_tiny_ade20k", 47.0, f"{PAPER} SwinV2-T"),
        Row(
            f"{UPERNET}_tiny_ade20k_window32",
            f"{UPERNET}_tiny_ade20k",
            ("mIoU",),
            {"mIoU": 47.8},
            f"{PAPER} SwinV2-T",
            WINDOW_32,
        ),
        _semantic(f"{UPERNET}_small_ade20k", 47.6, "Microsoft's Swin V1-S"),
        _semantic(f"{UPERNET}_base_ade20k", 48.1, "Microsoft's Swin V1-B from ImageNet-1k"),
        Row(
            f"{UPERNET}_large_ade20k",
            f"{UPERNET}_large_ade20k",
            ("mIoU",),
            {"mIoU": 55.9},
            f"{PAPER} SwinV2-L, multi-scale",
            ("TEST.AUG.ENABLED", "True"),
            augmented=True,
        ),
    ),
    "imagenet": tuple(_top1(name) for name, release in RELEASES.items() if release.top1),
}


def choose(suite: str, names: list[str] | None) -> tuple[Row, ...]:
    """Return the rows of a suite with the given names; all of them for None.

    Raises:
        ValueError: The suite has no row of a name.
    """
    rows = {row.name: row for row in SUITES[suite]}
    for name in names or ():
        if name not in rows:
            raise ValueError(f"--rows {name}: suite {suite} has the rows {', '.join(rows)}")
    return tuple(rows.values() if names is None else map(rows.__getitem__, names))
