"""The resizing of a config's test images, for the pictures that an exported file is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import detectron2.data.transforms as T
import numpy as np
from detectron2.config import instantiate

from swinv2_backbone.d2.config.lazy import load_lazy_config
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.loading.resizing import transformed
from swinv2_backbone.images.bands import BANDS
from swinv2_backbone.recipes import is_lazy

Resize = Callable[[np.ndarray], np.ndarray]  # (H, W, C_in) -> (h, w, C_in) float32


def resize_of_tests(
    config_file: str, opts: Sequence[str] = (), imports: Sequence[str] = ()
) -> Resize:
    """Return a function that resizes pixels as a config resizes its test images."""
    augmentation, image_format = _of_tests(config_file, opts, imports)

    def resize(pixels: np.ndarray) -> np.ndarray:
        transform = augmentation(T.AugInput(pixels.copy()))
        if image_format == BANDS:
            return transformed(transform, pixels.astype(np.float32))
        return transform.apply_image(pixels).astype(np.float32)

    return resize


def resize_note(config_file: str, opts: Sequence[str] = (), imports: Sequence[str] = ()) -> str:
    """Describe the sizes of a config's test images, at which an exported file works best."""
    augmentation, _ = _of_tests(config_file, opts, imports)
    parts = augmentation.augs if isinstance(augmentation, T.AugmentationList) else [augmentation]
    return ", ".join(map(_described, parts)) or "none"


def _of_tests(
    config_file: str, opts: Sequence[str], imports: Sequence[str]
) -> tuple[T.Augmentation, str]:
    """Return the augmentation of a config's test images, and the format of images."""
    if is_lazy(Path(config_file)):
        mapper = instantiate(load_lazy_config(config_file, opts, imports).dataloader.test.mapper)
        return mapper.augmentations, mapper.image_format
    cfg = load_config(config_file, list(opts), imports)
    resize = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    return resize, cfg.INPUT.FORMAT


def _described(part: T.Augmentation) -> str:
    if not isinstance(part, T.ResizeShortestEdge):
        return str(part)
    short = part.short_edge_length[0]
    return f"shorter side {short}, longer side at most {part.max_size}" if short else "none"
