"""Fitting images into files of a fixed size.

Legend: an image is (C_in, H, W), in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from swinv2_backbone.packing import Size


class Fitted(NamedTuple):
    """An image in the upper left corner of a larger one.

    Attributes:
        image: (C_in, H, W) of the file.
        size: the height and width that the image takes there.
    """

    image: Tensor
    size: Size


def fit(image: Tensor, size: Size, mean: Sequence[float]) -> Fitted:
    """Pad an image to a size with the mean, which models normalize to 0; first shrink a larger one.

    Detectron2 pads the images of a batch in the same way.
    """
    height, width = image.shape[-2:]
    scale = min(size[0] / height, size[1] / width, 1.0)
    if scale < 1:
        height, width = (max(1, round(scale * length)) for length in (height, width))
        resized = F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)
        image = resized[0]
    canvas = torch.tensor(mean, dtype=image.dtype)[:, None, None].repeat(1, *size)
    canvas[:, :height, :width] = image
    return Fitted(canvas, (height, width))
