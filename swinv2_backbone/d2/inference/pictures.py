"""Images of any kind that users hold, as the arrays that a predictor takes.

Legend: H, W are the height and width in pixels; n is the number of bands.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.ImageFile import ImageFile

from swinv2_backbone.d2.inference.predictor import Predictor
from swinv2_backbone.images.bands import BANDS
from swinv2_backbone.images.orientation import upright
from swinv2_backbone.images.reading import refusal, rgb_pixels
from swinv2_backbone.images.tiff_picture import eight_bit

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
KINDS = "a path, a PIL image, a NumPy array (H, W, channels), a tensor (channels, H, W)"
SCALE_IT = "multiply it by 255, round it and convert it to uint8"


def is_picture(value: Any) -> bool:
    """Return True for one image, False for several or something else."""
    return isinstance(value, (str, os.PathLike, Image.Image, np.ndarray, torch.Tensor))


def path_of(value: Any) -> str | None:
    """Return the path or URL of an image that has one."""
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    return getattr(value, "filename", None) or None


def picture_of(value: Any, predictor: Predictor, order: str = "RGB", urls: bool = False) -> Any:
    """Return an image as a predictor takes it: (H, W, 3) uint8 in BGR order, or (H, W, n) bands.

    Args:
        order: channel order of arrays and tensors, "RGB" or "BGR".
        urls: download addresses.

    Raises:
        OSError: a file cannot be read.
        TypeError: the value is no image.
        ValueError: its pixels are not those of an image.
    """
    if isinstance(value, (str, os.PathLike)):
        return predictor.read(checked_path(value, urls))
    if isinstance(value, Image.Image):
        if predictor.image_format == BANDS:
            raise ValueError("a model of bands takes files and arrays, not PIL images")
        return _from_pillow(value)
    if isinstance(value, torch.Tensor):
        return _from_array(_channels_last(value), predictor, order, "a tensor (channels, H, W)")
    if isinstance(value, np.ndarray):
        return _from_array(value, predictor, order, "an array (H, W, channels)")
    raise TypeError(f"an image is {KINDS}, not {type(value).__name__}")


def checked_path(value: str | os.PathLike, urls: bool) -> str:
    """Return a path or, with ``urls``, an address to read from.

    Raises:
        OSError, ValueError: there is no such file.
    """
    path = os.fspath(value)
    if URL.match(path):
        if not urls:
            raise ValueError(f"{path!r} is an address: pass urls=True to download it")
    elif os.path.isdir(path):
        raise ValueError(
            f"{path!r} is a folder: pass its files, such as sorted(Path({path!r}).glob('*.jpg'))"
        )
    elif not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {path!r} (in {str(Path.cwd())!r})")
    return path


def _from_pillow(image: Image.Image) -> np.ndarray:
    name = getattr(image, "filename", "") or f"the PIL image of mode {image.mode}"
    if isinstance(image, ImageFile) and (refused := refusal(image)):
        raise ValueError(f"{name}: {refused}")
    if image.width * image.height == 0:
        raise ValueError(f"{name} has no pixels: its size is {image.size}")
    image.load()
    turned = upright(image)  # type: ignore[arg-type]  # it reads EXIF data as any image has them
    return rgb_pixels(turned, name, 65535)[:, :, ::-1]


def _channels_last(tensor: torch.Tensor) -> np.ndarray:
    if tensor.ndim == 4:
        raise ValueError(
            f"a tensor of shape {tuple(tensor.shape)} is a batch: pass list(tensor), to get a list "
            "of results"
        )
    plain = tensor.detach().cpu()
    plain = plain.float() if plain.dtype == torch.bfloat16 else plain
    return plain.permute(1, 2, 0).numpy() if plain.ndim == 3 else plain.numpy()


def _from_array(pixels: np.ndarray, predictor: Predictor, order: str, layout: str) -> np.ndarray:
    if order not in ("RGB", "BGR"):
        raise ValueError(f"order must be 'RGB' or 'BGR', got {order!r}")
    if pixels.ndim == 4:
        raise ValueError(f"an array of shape {pixels.shape} is a batch: pass list(array)")
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise ValueError(f"an image is {layout} or (H, W), got shape {pixels.shape}")
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if predictor.image_format == BANDS:
        return _checked_bands(pixels, predictor, layout)
    if pixels.shape[2] not in (1, 3):
        raise ValueError(_wrong_channels(pixels.shape, layout))
    colors = _eight_bit(pixels)
    if colors.shape[2] == 1:
        return np.repeat(colors, 3, axis=2)
    return colors[:, :, ::-1] if order == "RGB" else colors


def _wrong_channels(shape: tuple[int, ...], layout: str) -> str:
    """Return the error for an image that is neither gray nor RGB, as (H, W, channels)."""
    found = f"{layout} of an image has 1 or 3 channels, got {shape[2]} in (H, W, channels) "
    found += f"= {shape}"
    if shape[2] in (2, 4):
        return f"{found}: drop alpha"
    if 1 in shape[:2] or 3 in shape[:2]:
        return f"{found}: the channels seem to be on another axis, permute it"
    return found


def _eight_bit(pixels: np.ndarray) -> np.ndarray:
    """Convert numbers to uint8 if their range leaves no doubt what they mean."""
    kind = pixels.dtype
    if kind == np.uint8:
        return pixels
    if kind == np.uint16:
        return eight_bit(pixels, 65535)
    if kind.kind not in "iuf":
        raise ValueError(f"the pixels of an image are numbers from 0 to 255, got dtype {kind}")
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= 255):  # also NaN
        raise ValueError(
            f"the pixels of an image are numbers from 0 to 255, got {kind} from {low} to {high}: "
            "pass it as it is before normalization, in uint8"
        )
    if kind.kind == "f" and 0 < high <= 1:
        raise ValueError(
            f"an image of {kind} with pixels from {low} to {high} seems to be scaled to 0 ... 1: "
            f"{SCALE_IT}"
        )
    return np.rint(pixels).astype(np.uint8)


def _checked_bands(pixels: np.ndarray, predictor: Predictor, layout: str) -> np.ndarray:
    """Check the pixels of an image of bands, which are used as they are."""
    bands = predictor.channels
    if bands is not None and pixels.shape[2] != bands:
        raise ValueError(
            f"the model takes {bands} bands as {layout}, got {pixels.shape[2]} in (H, W, bands) "
            f"= {pixels.shape}"
        )
    if pixels.dtype.kind not in "iuf" or not np.isfinite(pixels).all():
        raise ValueError(
            f"the pixels of bands are finite numbers, got {pixels.dtype} with NaN, infinity or "
            "values of another kind"
        )
    return pixels
