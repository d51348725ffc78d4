"""The config.json from which timm builds and loads a model of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from swinv2_backbone.checkpoints.architecture import Architecture, built_architecture
from swinv2_backbone.checkpoints.target import find_backbone
from swinv2_backbone.classifier import SwinV2Classifier
from swinv2_backbone.layers import PATCH_SIZE
from swinv2_backbone.packing import Size
from swinv2_backbone.variants import RELEASES, VARIANTS

LARGEST = 4096  # side of an image in pixels
CROPPED_BELOW, CROP = 384, 224 / 256  # pixels; share of the resized image that is classified


def timm_config(
    model: nn.Module, mean: Sequence[float], std: Sequence[float], class_names: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the config.json of a backbone or a classifier.

    ``model_args`` state the whole architecture, so that the windows of the named architecture,
    which is only timm's entry point, do not matter.

    Args:
        mean, std: the normalization of pixels that are scaled to 0 ... 1.
        class_names: the names of the classes, if any.

    Raises:
        ValueError: no image of usual size fits the windows, see :func:`image_size`.
    """
    _, backbone = find_backbone(model)
    size, windows = built_architecture(backbone), backbone.window_sizes
    classes = model.head.out_features if isinstance(model, SwinV2Classifier) else 0
    side = image_size(windows)
    names = {"label_names": list(class_names)} if class_names else {}
    return {
        "architecture": _entry_point(size, windows),
        "num_classes": classes,
        "num_features": size.embed_dim * 2 ** (len(size.depths) - 1),
        "global_pool": "avg",
        **names,
        "model_args": {
            "img_size": list(side),
            "in_chans": backbone.in_channels,
            "embed_dim": size.embed_dim,
            "depths": list(size.depths),
            "num_heads": list(size.num_heads),
            "window_size": [list(window) for window in windows],
            "pretrained_window_sizes": [list(p) for p in backbone.pretrained_window_sizes],
        },
        "pretrained_cfg": {
            "input_size": [backbone.in_channels, *side],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": CROP if max(side) < CROPPED_BELOW else 1.0,
            "mean": list(mean),
            "std": list(std),
            "num_classes": classes,
            "first_conv": "patch_embed.proj",
            "classifier": "head.fc",
        },
    }


def image_size(windows: Sequence[Size]) -> Size:
    """Return the smallest image whose maps are whole numbers of windows in every stage.

    timm builds a model for one size of image, and its shifted windows differ from ours where it
    pads a map.

    Raises:
        ValueError: a side would be longer than ``LARGEST``.
    """
    strides = [PATCH_SIZE * 2**stage for stage in range(len(windows))]
    height, width = (
        math.lcm(*(stride * window[axis] for stride, window in zip(strides, windows)))
        for axis in (0, 1)
    )
    if max(height, width) > LARGEST:
        raise ValueError(
            f"the maps of all stages are multiples of the windows {tuple(windows)} only in images "
            f"of {height}x{width} pixels: set another window first"
        )
    return height, width


def _entry_point(size: Architecture, windows: Sequence[Size]) -> str:
    """Return the most similar architecture that timm has under its name."""

    def likeness(name: str) -> tuple[bool, bool]:
        variant = VARIANTS[name]
        same = (variant.embed_dim, variant.depths, variant.num_heads) == tuple(size)
        return same, tuple(windows) == tuple((m, m) for m in variant.window_sizes)

    return max(RELEASES, key=likeness)  # the first of the most similar
