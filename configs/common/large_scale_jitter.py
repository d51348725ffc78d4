"""Large-scale jitter: an image is scaled by 0.1 to 2 against a square, and cropped to it."""

from __future__ import annotations

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from omegaconf import DictConfig


def large_scale_jitter(size: int) -> list[DictConfig]:
    """The augmentations of training with squares of ``size`` pixels."""
    return [
        L(T.ResizeScale)(min_scale=0.1, max_scale=2.0, target_height=size, target_width=size),
        # Not padded: padding is the batch's matter, and is not attended there.
        L(T.FixedSizeCrop)(crop_size=[size, size], pad=False),
        L(T.RandomFlip)(),
    ]
