"""Reconstructions of a few fixed images during SimMIM pre-training: pictures and their loss.

Legend: N images of S x S pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from swinv2_backbone.d2.data.loading.bands import as_picture
from swinv2_backbone.d2.data.storage.pictures import write_picture
from swinv2_backbone.d2.pretraining.masked import MaskedImages, read_center
from swinv2_backbone.simmim import SimMIM, hidden_pixels, masked_l1

SHOWN = 8  # images
GRAY, WHITE, GAP = 128, 255, 4  # masked pixels; lines between images, and their width


class FixedImages:
    """Some training images with fixed masks, evenly spaced among the files.

    Args:
        files: the training images; unreadable ones are replaced by others.
        mapper: the training mapper.
        seed: seed of the masks.

    Attributes:
        images: (N, C_in, S, S), uint8 in RGB or float32 of bands.
        masks: (N, S / 4, S / 4) bool.

    Raises:
        ValueError: none of the files can be read.
    """

    def __init__(self, files: Sequence[str], mapper: MaskedImages, seed: int):
        apart = max(len(files) // SHOWN, 1)
        # Evenly spaced files first, then those between them.
        order = [file for first in range(apart) for file in files[first::apart]]
        read: list[Tensor] = []
        faults: list[str] = []
        for file in order:
            try:
                read.append(read_center(file, mapper.image_size, mapper.bands))
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
    """Write a PNG with one row per image: the image, the masked image, the reconstruction.

    The reconstruction keeps the visible pixels of the image.

    Args:
        model: the model; it is in training mode afterwards.
        fixed: the images and their masks.
        mean, std: (C_in, 1, 1), the normalization of the model's images.
        path: the file to write.

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
    filled = (found.float() * std + mean).cpu()
    if fixed.images.dtype == torch.uint8:
        filled, masked = filled.round().clamp(0, 255).byte(), torch.tensor(GRAY, dtype=torch.uint8)
    else:
        masked = mean.cpu()
    columns = [
        fixed.images,
        torch.where(hidden, masked, fixed.images),
        torch.where(hidden, filled, fixed.images),
    ]
    if fixed.images.dtype != torch.uint8:
        columns = _as_pictures(columns)
    _write_png(path, np.concatenate([_column(pictures) for pictures in columns], axis=1))
    return loss


def _as_pictures(columns: Sequence[Tensor]) -> list[Tensor]:
    """Convert bands to RGB, (N, n, S, S) float32 -> (N, 3, S, S) uint8 each.

    The columns are stretched together, so that equal pixels have equal colors.
    """
    rows = torch.cat(list(columns), dim=3).permute(0, 2, 3, 1)
    pictures = [as_picture(row.numpy())[:, :, ::-1].copy() for row in rows]
    drawn = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return list(drawn.chunk(len(columns), dim=3))


def _column(pictures: Tensor) -> np.ndarray:
    """Stack images: (N, 3, S, S) -> (N (S + GAP), S + GAP, 3)."""
    framed = torch.nn.functional.pad(pictures, (0, GAP, 0, GAP), value=WHITE)
    return framed.permute(0, 2, 3, 1).flatten(0, 1).numpy()


def _write_png(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, rgb[:, :, ::-1])
