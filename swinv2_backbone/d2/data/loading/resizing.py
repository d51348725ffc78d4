"""Resizing of float images with an antialiasing filter, as Pillow resizes RGB images.

Detectron2 resizes float images without a filter, so that small structures of a shrunk image appear
or vanish by chance.

Legend: images are (H, W, n) float32.
"""

from __future__ import annotations

from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

FILTERS = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}


class BandsInput(T.AugInput):
    """An image of bands, optionally with boxes and labels, for augmentations to transform."""

    image: np.ndarray
    boxes: Any  # an array or None, like the labels
    sem_seg: Any

    def transform(self, tfm: T.Transform) -> None:
        self.image = transformed(tfm, self.image)
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)


def transformed(transform: T.Transform, image: np.ndarray) -> np.ndarray:
    """Apply a transform to an image of bands, with a filter where it resizes."""
    if isinstance(transform, T.TransformList):
        for each in transform.transforms:
            image = transformed(each, image)
        return image
    if isinstance(transform, T.ResizeTransform) and transform.interp in FILTERS:
        bands = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        mode, size = FILTERS[transform.interp], (transform.new_h, transform.new_w)
        return F.interpolate(bands, size, mode=mode, antialias=True)[0].permute(1, 2, 0).numpy()
    return transform.apply_image(image)
