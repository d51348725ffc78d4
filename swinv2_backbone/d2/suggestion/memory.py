"""The GPU memory of training a detector, counted without a GPU.

Weights, gradients and AdamW's moments follow from the number of parameters. Activations are counted
in a forward of the real model whose tensors have no memory; see ``training_memory``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from swinv2_backbone.block import SwinV2Block
from swinv2_backbone.d2.modeling.build import build_model
from swinv2_backbone.d2.modeling.image_sizes import attach_sizes
from swinv2_backbone.training_memory import (
    FLOAT,
    GIB,
    MOMENTS,
    give_shapes,
    saved_bytes,
    without_memory,
)

# Peak in training on an H100 relative to the counted activations; see docs/SCALE.md.
TEMPORARY, TEMPORARY_CHECKPOINTING = 1.16, 1.58
CONTEXT = 1.0 * GIB  # CUDA's context and libraries
USABLE = 0.9  # the rest is lost to fragmentation
IOU_BYTES = 24  # of each pair of object and anchor, when Detectron2 computes their IoU


@dataclass(frozen=True)
class DetectorMemory:
    """Bytes of one GPU.

    Attributes:
        fixed: weights, gradients, moments and CUDA's context.
        per_image: activations and temporary memory of each image.
    """

    fixed: float
    per_image: float

    def images(self, memory: float) -> int:
        """Return the number of images that fit into ``memory`` bytes."""
        return max(int((USABLE * memory - self.fixed) // self.per_image), 0)

    def total(self, images: int) -> float:
        """Return the bytes for a number of images."""
        return self.fixed + images * self.per_image


def detector_memory(cfg: CfgNode, size: tuple[int, int], objects: int) -> DetectorMemory:
    """Count the memory of training a Faster or Mask R-CNN in bfloat16.

    Args:
        cfg: a config whose ``MODEL.DEVICE`` is "meta" and ``MODEL.SWINV2.KERNEL`` "triton".
        size: (height, width) of the images in pixels.
        objects: objects of one image.
    """
    os.environ.setdefault("TRITON_INTERPRET", "1")  # otherwise the kernel requires a GPU
    with torch.device("meta"):
        model = build_model(cfg).train()
    checkpointing = cfg.MODEL.SWINV2.ACTIVATION_CHECKPOINTING
    with without_memory():
        give_shapes(model)
        saved = _backbone_bytes(model, size, checkpointing) + _head_bytes(model, cfg, size)
    factor = TEMPORARY_CHECKPOINTING if checkpointing else TEMPORARY
    per_image = factor * saved + IOU_BYTES * objects * _anchor_count(cfg, size)
    parameters = sum(p.numel() for p in model.parameters())
    return DetectorMemory((2 + MOMENTS) * FLOAT * parameters + CONTEXT, per_image)


def _backbone_bytes(model: nn.Module, size: tuple[int, int], checkpointing: bool) -> int:
    """Return the bytes that the backbone and the FPN save for one image."""
    backbone = model.get_submodule("backbone")
    images = attach_sizes(torch.empty(1, 3, *_padded(size)), [size])

    def run() -> Any:
        return backbone(images)

    saved = saved_bytes(backbone, run, torch.bfloat16, checkpointing)
    if not checkpointing:
        return saved
    # During its backward, a block has all its activations.
    largest = 0
    stages: Any = backbone.get_submodule("bottom_up.swinv2.layers")
    for stage in stages:
        block = next(module for module in stage.modules() if isinstance(module, SwinV2Block))
        block.activation_checkpointing = False
        largest = max(largest, saved_bytes(backbone, run, torch.bfloat16, True) - saved)
        block.activation_checkpointing = True
    return saved + largest


def _head_bytes(model: nn.Module, cfg: CfgNode, size: tuple[int, int]) -> int:
    """Return the bytes that the RPN and the heads save for one image."""
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    maps = [torch.empty(1, channels, *_map_size(size, 2**level)) for level in range(2, 7)]
    regions = cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE
    positive = int(regions * cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION)
    heads: Any = model.roi_heads

    def pooled(count: int, resolution: int) -> torch.Tensor:
        return torch.empty(count, channels, resolution, resolution, requires_grad=True)

    box_maps = pooled(regions, cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION)
    parts: list[Callable[[], Any]] = [
        lambda: model.proposal_generator.rpn_head(maps),  # type: ignore[operator, union-attr]
        lambda: heads.box_predictor(heads.box_head(box_maps)),
    ]
    if cfg.MODEL.MASK_ON:
        mask_maps = pooled(positive, cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION)
        parts.append(lambda: heads.mask_head.layers(mask_maps))
    return sum(saved_bytes(model, part, torch.bfloat16) for part in parts)


def _anchor_count(cfg: CfgNode, size: tuple[int, int]) -> int:
    cells = sum(h * w for h, w in (_map_size(size, 2**level) for level in range(2, 7)))
    return cells * len(cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS[0])


def _padded(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a batch, which the FPN's stride divides."""
    height, width = (-(-length // 32) * 32 for length in size)
    return height, width


def _map_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    height, width = (-(-length // stride) for length in _padded(size))
    return height, width
