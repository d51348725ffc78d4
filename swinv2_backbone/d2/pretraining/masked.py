"""The images of a folder as SimMIM uses them: randomly cropped, flipped and masked.

Legend: S is the side of the images in pixels.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from swinv2_backbone.d2.data.loading.bands import read_bands
from swinv2_backbone.d2.data.loading.images import read_image
from swinv2_backbone.images.bands import BAND_SUFFIXES, has_bands
from swinv2_backbone.images.kinds import (
    IMAGE_SUFFIXES,
    described,
    is_image,
    visible_files,
)
from swinv2_backbone.simmim import check_masking, random_masks

SCALE, RATIO = (0.67, 1.0), (3 / 4, 4 / 3)  # of the crop; SimMIM, section 4.1.1


def find_images(folder: str | os.PathLike, bands: bool = False) -> list[str]:
    """Find the image files in a folder and its subfolders, sorted by name; log the other files.

    Args:
        bands: find images of the format "BANDS" instead.

    Raises:
        ValueError: the folder does not exist, or holds no image.
    """
    root = Path(os.path.expanduser(folder))
    if not root.is_dir():
        raise ValueError(f"no folder {str(root)!r} with images to train on")
    files = list(visible_files(root))
    images = [path for path in files if (has_bands if bands else is_image)(path)]
    others = "\n".join(described(sorted(set(files) - set(images))))
    found = [os.fspath(path) for path in images]
    if not found:
        raise ValueError(
            f"{root} has no images, not even in subfolders: their names must end with one of "
            f"{', '.join(BAND_SUFFIXES if bands else IMAGE_SUFFIXES)}"
            + (f"; it has\n{others}" if others else "")
        )
    if others:
        logging.getLogger(__name__).info("Files of %s that are skipped:\n%s", root, others)
    return sorted(found)


class SameImages:
    """A fingerprint of the image files in checkpoints, to warn if a run resumes with others."""

    def __init__(self, files: Sequence[str]):
        names = "\n".join(os.path.basename(file) for file in files)
        self.state: dict[str, int | str] = {
            "count": len(files),
            "sha256": hashlib.sha256(names.encode()).hexdigest(),
        }

    def state_dict(self) -> dict[str, int | str]:
        return self.state

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        if state != self.state:
            logging.getLogger(__name__).warning(
                "Training resumes, but not exactly as it would have continued: these are other "
                f"images ({self.state['count']}) than those it began with ({state['count']})"
            )


class MaskedImages:
    """A mapper from the record of an image to the model's input: a random crop and a mask.

    Random numbers come from PyTorch's default generator.

    Args:
        image_size: S.
        mask_patch, mask_ratio: see :func:`swinv2_backbone.simmim.random_masks`.
        bands: number of bands of images of the format "BANDS"; None: RGB images.

    Raises:
        ValueError: S is not a multiple of the mask patch.
    """

    def __init__(
        self, image_size: int, mask_patch: int, mask_ratio: float, bands: int | None = None
    ):
        check_masking(image_size, mask_patch, mask_ratio)
        self.image_size, self.mask_patch, self.mask_ratio = image_size, mask_patch, mask_ratio
        self.bands = bands
        self.augment = transforms.Compose(
            [
                transforms.RandomResizedCrop(image_size, SCALE, RATIO),
                transforms.RandomHorizontalFlip(),
            ]
        )

    def __call__(self, record: dict) -> dict:
        """Add ``image`` (C_in, S, S) and ``mask`` (S / 4, S / 4) bool to a record.

        The image is uint8 in RGB, or float32 of bands.

        Raises:
            OSError: the image cannot be read.
        """
        image = _as_tensor(self.augment(_read(record["file_name"], self.bands)))
        return {**record, "image": image, "mask": self.draw_mask(torch.default_generator)}

    def draw_mask(self, generator: torch.Generator) -> Tensor:
        """Draw a mask, (S / 4, S / 4) bool."""
        patch, ratio = self.mask_patch, self.mask_ratio
        return random_masks(1, self.image_size, generator, patch=patch, ratio=ratio)[0]


def read_center(path: str, image_size: int, bands: int | None = None) -> Tensor:
    """Read the largest square in the center of an image, resized to (C_in, S, S).

    Args:
        bands: see :class:`MaskedImages`.

    Raises:
        OSError: the image cannot be read.
    """
    image = resize(_read(path, bands), image_size)
    return _as_tensor(center_crop(image, [image_size, image_size]))


def _as_tensor(image: Image.Image | Tensor) -> Tensor:
    return image if isinstance(image, Tensor) else pil_to_tensor(image)


def _read(path: str, bands: int | None) -> Image.Image | Tensor:
    try:
        if bands is not None:
            return torch.from_numpy(read_bands(path, bands).transpose(2, 0, 1).copy())
        return Image.fromarray(read_image(path, "RGB"))
    except ValueError as error:  # pixels of an unknown range are treated as damage here
        raise OSError(str(error)) from error
