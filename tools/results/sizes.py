"""The two sizes of all models and images: small for a CPU, full for a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from detectron2.config import CfgNode


@dataclass(frozen=True)
class Size:
    """Size of all models and images of a comparison.

    Attributes:
        objects, semantic: Recipes, from which every config starts.
        embed_dim, depths, num_heads: Of both Swins.
        resnet_width: Channels of the stem of ResNet.
        scale: Of the sets' image sizes and anchors.
        masked: Pixels of the images and of the masked squares, for training without labels.
        changes: Config keys and values.
    """

    objects: str
    semantic: str
    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    resnet_width: int
    scale: float
    masked: tuple[int, int]
    changes: tuple[str, ...]


# About 2.3 million parameters each, for a CPU.  Masked squares of 32 pixels would hide nuclei.
SMALL = Size(
    objects="mask_rcnn_swinv2_demo.yaml",
    semantic="upernet_swinv2_demo.yaml",
    embed_dim=32,
    depths=(2, 2, 2, 2),
    num_heads=(1, 2, 4, 8),
    resnet_width=20,
    scale=1.0,
    masked=(128, 16),
    changes=("MODEL.DEVICE", "cpu"),
)
# ResNet-50, Swin V1-T and SwinV2-T at 512 pixels in bfloat16, for a GPU.
FULL = Size(
    objects="mask_rcnn_swinv2.yaml",
    semantic="upernet_swinv2_tiny_ade20k.yaml",
    embed_dim=96,
    depths=(2, 2, 6, 2),
    num_heads=(3, 6, 12, 24),
    resnet_width=64,
    scale=8 / 3,
    masked=(192, 32),
    changes=(
        *("MODEL.WEIGHTS", "", "MODEL.SWINV2.VARIANT", "None", "SOLVER.AMP.ENABLED", "True"),
        *("SOLVER.AMP.DTYPE", "bfloat16", "SOLVER.IMS_PER_BATCH", "8"),
        *("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.STEPS", "()"),
    ),
)


def size_of(cfg: CfgNode) -> Size:
    """Return the size of a config's models."""
    return next(one for one in (SMALL, FULL) if one.embed_dim == cfg.MODEL.SWINV2.EMBED_DIM)


def scaled(pixels: int, cfg: CfgNode) -> int:
    """Return a set's size in pixels for the models of a config."""
    return round(pixels * size_of(cfg).scale)


def resize(cfg: CfgNode, side: int) -> None:
    """Set the shorter side of all images, and the longer one to at most half more."""
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (side,), side
    cfg.INPUT.MAX_SIZE_TRAIN = cfg.INPUT.MAX_SIZE_TEST = side * 3 // 2
