"""What a SimMIM makes of some images, always the same ones: pictures and their loss.

Legend: N images of S x S pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from swinv2_backbone.checkpoints.durable import durable
from swinv2_backbone.d2.pretraining.masked import MaskedImages, read_centre
from swinv2_backbone.simmim import SimMIM, hidden_pixels, masked_l1

SHOWN = 8  # images
GREY, WHITE, GAP = 128, 255, 4  # of what is hidden; of the lines between pictures, in pixels


class FixedImages:
    """Some images of a training with fixed masks, spread evenly over its files.

    Args:
        files: of the training; of those that cannot be read others are taken.
        mapper: of the training.
        seed: of the masks.

    Attributes:
        images: (N, 3, S, S) uint8, RGB.
        masks: (N, S / 4, S / 4) bool.

    Raises:
        ValueError: none of the files can be read.
    """

    def __init__(self, files: Sequence[str], mapper: MaskedImages, seed: int):
        apart = max(len(files) // SHOWN, 1)
        # First those that are evenly spread, then what lies between them.
        order = [file for first in range(apart) for file in files[first::apart]]
        read, faults = [], []
        for file in order:
            try:
                read.append(read_centre(file, mapper.image_size))
            except OSError as error:
                faults.append(str(error))
            if len(read) == SHOWN:
                break
        if not read:
            raise ValueError(f"none of the {len(files)} images can be read; the first: {faults[0]}")
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.stack(read)
        self.masks = torch.stack([mapper.draw_mask(generator) for _ in read])


@torch.no_grad()
def draw_reconstructions(
    model: SimMIM, fixed: FixedImages, mean: Tensor, std: Tensor, path: Path
) -> float:
    """Write a PNG with a row an image: the image, what the model sees, what it makes of that.

    In the last, what was visible is as it was.

    Args:
        mean, std: (3, 1, 1), by which the model's images are normalised.

    Returns:
        The loss of these images.

    Raises:
        OSError: the file cannot be written.
    """
    images = (fixed.images.to(mean.device) - mean) / std
    masks = fixed.masks.to(mean.device)
    model.eval()
    try:
        found = model.reconstruct(images, masks)
    finally:
        model.train()
    loss, hidden = float(masked_l1(found, images, masks)), hidden_pixels(fixed.masks)
    filled = (found.float() * std + mean).round().clamp(0, 255).byte().cpu()
    columns = [
        fixed.images,
        torch.where(hidden, torch.tensor(GREY, dtype=torch.uint8), fixed.images),
        torch.where(hidden, filled, fixed.images),
    ]
    _write_png(path, np.concatenate([_column(pictures) for pictures in columns], axis=1))
    return loss


def _column(pictures: Tensor) -> np.ndarray:
    """(N, 3, S, S) -> (N (S + GAP), S + GAP, 3)."""
    framed = torch.nn.functional.pad(pictures, (0, GAP, 0, GAP), value=WHITE)
    return framed.permute(0, 2, 3, 1).flatten(0, 1).numpy()


def _write_png(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _, encoded = cv2.imencode(".png", rgb[:, :, ::-1])
    with durable(path) as file:
        file.write(encoded.tobytes())
