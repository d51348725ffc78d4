"""The pretrained windows: the window of each stage in pre-training.

SwinV2 computes its position bias from coordinates divided by them.  ``pretrained_sources`` reads
them from a file; this module decides between the file and the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.packing import Size


class PretrainedWindows(NamedTuple):
    """The pretrained window of each stage, and the source that it was read from.

    Attributes:
        sizes: (height, width) of each stage, in tokens.
        source: a description of the source.
        trained_windows: the windows of the model that was saved, which may be larger; None if
            unknown.
    """

    sizes: tuple[Size, ...]
    source: str
    trained_windows: tuple[Size, ...] | None = None

    def __str__(self) -> str:
        return f"{describe(self.sizes)} per stage, from {self.source}"


def describe(windows: tuple[Size, ...]) -> str:
    """Format windows as ``16, 16, 16, 8``, or ``12x16, ...`` where height and width differ."""
    return ", ".join(str(h) if h == w else f"{h}x{w}" for h, w in windows)


def decide_pretrained_windows(
    backbone: SwinV2, found: PretrainedWindows | None, path: Path
) -> PretrainedWindows:
    """Return the pretrained windows for ``backbone`` with the weights of ``path``.

    Args:
        backbone: the model, built with or without pretrained windows.
        found: the pretrained windows of the file; None if it does not specify them.
        path: the file, for messages.

    Raises:
        ValueError: neither the file nor the model specifies them, or the two differ.
    """
    stages = len(backbone.layers)
    configured = backbone.pretrained_window_sizes
    if found is None and backbone.pretrained_windows_assumed:
        raise ValueError(
            f"{path} does not specify the windows it was trained with, and neither does the model: "
            "give pretrained_window_sizes (MODEL.SWINV2.PRETRAINED_WINDOW_SIZES), or build a "
            "published variant by its name (MODEL.SWINV2.VARIANT)"
        )
    if found is None:
        return PretrainedWindows(configured, "the model; the file does not specify them")
    if backbone.pretrained_windows_assumed or found.sizes[:stages] == configured:
        return found
    setting = tuple(h if h == w else (h, w) for h, w in found.sizes)
    raise ValueError(
        f"{path}: the model has the pretrained windows {describe(configured)}, but the weights "
        f"were trained with {describe(found.sizes[:stages])} (from {found.source}): choose the "
        "variant of the weights (MODEL.SWINV2.VARIANT), or give pretrained_window_sizes "
        f"(MODEL.SWINV2.PRETRAINED_WINDOW_SIZES) {setting}; the window itself may differ.  (If the "
        "source is wrong, tools/convert_checkpoint.py --pretrained-window-sizes writes the "
        "correct ones to a file.)"
    )


def apply_pretrained_windows(backbone: SwinV2, pretrained: PretrainedWindows) -> None:
    """Set the pretrained windows of a model whose last stages may not be built."""
    windows = pretrained.sizes[: backbone.num_stages]
    unbuilt = backbone.num_stages - len(windows)
    backbone.set_pretrained_window_sizes((*windows, *windows[-1:] * unbuilt))
