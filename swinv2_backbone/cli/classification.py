"""Classification by a SwinV2: image preparation, the most probable classes, accuracy.

Shapes: S image size in pixels; n channels or bands.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import Swin_V2_T_Weights
from torchvision.transforms.functional import pil_to_tensor
from tqdm import tqdm

from swinv2_backbone.classifier import SwinV2Classifier
from swinv2_backbone.images import reading
from swinv2_backbone.images.bands import BANDS, has_bands, read_bands
from swinv2_backbone.images.kinds import is_image
from swinv2_backbone.variants import PIXEL_MEAN, PIXEL_STD

CROPPED_BELOW = 384  # pixels
SHOWN = 5  # classes


class Pixels(NamedTuple):
    """The format of the images, and the mean and standard deviation of each channel or band."""

    image_format: str = "RGB"
    mean: Sequence[float] = PIXEL_MEAN
    std: Sequence[float] = PIXEL_STD

    def read(self, path: str | os.PathLike) -> Image.Image | Tensor:
        """Read an image: RGB, upright, as training and prediction do; or bands, (n, H, W) float32.

        Raises:
            ValueError: The file cannot be read; the message names it.
        """
        if self.image_format != BANDS:
            return read_image(path)
        try:
            stored = read_bands(path, len(self.mean))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as an image of bands: {error}") from error
        return torch.from_numpy(stored.transpose(2, 0, 1).copy())

    def may_be(self, path: str) -> bool:
        """Return True for the name of a file of this format."""
        return (has_bands if self.image_format == BANDS else is_image)(Path(path))


RGB = Pixels()


class Accuracy(NamedTuple):
    """Top-1 and top-5 accuracy in percent, and the number of images."""

    top1: float
    top5: float
    images: int


def check_device(device: str) -> None:
    """Raise ValueError if PyTorch cannot use the device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device}: {error}") from error


def preparation(image_size: int, pixels: Pixels = RGB) -> transforms.Compose:
    """Return the transform from an image to a tensor (n, S, S), S = ``image_size``."""
    bicubic = transforms.InterpolationMode.BICUBIC
    if image_size < CROPPED_BELOW:
        resize = [
            transforms.Resize(image_size * 256 // 224, bicubic),
            transforms.CenterCrop(image_size),
        ]
    else:
        resize = [transforms.Resize((image_size, image_size), bicubic)]
    return transforms.Compose(
        [*resize, _as_tensor, transforms.Normalize(pixels.mean, pixels.std)],
    )


def _as_tensor(image: Image.Image | Tensor) -> Tensor:
    return image if isinstance(image, Tensor) else pil_to_tensor(image).float()


def read_image(path: str | os.PathLike) -> Image.Image:
    """Read an image as RGB, upright, as training and prediction do.

    Raises:
        ValueError: The file cannot be read; the message names it.
    """
    try:
        return Image.fromarray(reading.read_image(path, "RGB"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def class_names(path: Path | None, num_classes: int) -> list[str]:
    """Return one name for each class: from a file, else ImageNet-1k's, else the class numbers.

    Raises:
        ValueError: The file has another number of names.
    """
    if path is not None:
        names = path.read_text(encoding="utf-8").splitlines()
        if len(names) != num_classes:
            raise ValueError(
                f"{path} has another number of lines ({len(names)}) than the model has classes "
                f"({num_classes})"
            )
        return names
    imagenet = Swin_V2_T_Weights.IMAGENET1K_V1.meta["categories"]
    if len(imagenet) == num_classes:
        return imagenet
    return [f"class {index} (--classes FILE gives names)" for index in range(num_classes)]


@torch.inference_mode()
def most_probable(
    model: SwinV2Classifier,
    image: Image.Image | Tensor,
    image_size: int,
    device: str,
    pixels: Pixels = RGB,
) -> list[tuple[float, int]]:
    """Return the probability and index of the five most probable classes, at most."""
    batch = preparation(image_size, pixels)(image)[None].to(device)
    probabilities = model(batch).softmax(dim=1)[0]
    values, indices = probabilities.topk(min(SHOWN, len(probabilities)))
    return list(zip(values.tolist(), indices.tolist()))


@torch.inference_mode()
def accuracy(
    model: SwinV2Classifier,
    folder: Path,
    image_size: int,
    pixels: Pixels = RGB,
    *,
    batch_size: int,
    workers: int,
    device: str,
) -> Accuracy:
    """Measure the accuracy on a folder of images.

    Raises:
        ValueError: The folder does not have one folder for each class.
    """
    images = ImageFolder(
        str(folder),
        preparation(image_size, pixels),
        loader=pixels.read,
        is_valid_file=pixels.may_be,
    )
    classes = model.head.out_features
    if len(images.classes) != classes:
        raise ValueError(
            f"{folder} has {len(images.classes)} class folders, the model {classes} classes: class "
            "n of the model is the n-th folder in order of their names"
        )
    loader = DataLoader(images, batch_size, num_workers=workers)
    top1 = top5 = 0
    with tqdm(total=len(images), unit="image", desc=str(folder)) as bar:
        for batch, labels in loader:
            ranked = model(batch.to(device)).topk(min(SHOWN, classes), dim=1).indices.cpu()
            hits = ranked == labels[:, None]
            top1 += int(hits[:, 0].sum())
            top5 += int(hits.any(dim=1).sum())
            bar.update(len(labels))
    return Accuracy(100 * top1 / len(images), 100 * top5 / len(images), len(images))
