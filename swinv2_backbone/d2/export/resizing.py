"""The resizing of a config's test images, for pictures that calibrate an exported file."""

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

Resize = Callable[[np.ndarray], np.ndarray]  # (H, W, C_in) -> (h, w, C_in) float32


def resize_of_tests(
    config_file: str, opts: Sequence[str] = (), imports: Sequence[str] = ()
) -> Resize:
    """Return a function that resizes pixels as a config resizes its test images."""
    augmentation: T.Augmentation
    if Path(config_file).suffix == ".py":
        mapper = instantiate(load_lazy_config(config_file, opts, imports).dataloader.test.mapper)
        augmentation, image_format = mapper.augmentations, mapper.image_format
    else:
        cfg = load_config(config_file, list(opts), imports)
        augmentation = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
        image_format = cfg.INPUT.FORMAT

    def resize(pixels: np.ndarray) -> np.ndarray:
        transform = augmentation(T.AugInput(pixels.copy()))
        if image_format == BANDS:
            return transformed(transform, pixels.astype(np.float32))
        return transform.apply_image(pixels).astype(np.float32)

    return resize
