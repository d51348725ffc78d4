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
    backbone: SwinV2,
    found: PretrainedWindows | None,
    path: Path,
    *,
    own: bool = False,
    suggestion: str = "",
) -> PretrainedWindows:
    """Return the pretrained windows for ``backbone`` with the weights of ``path``.

    A file that does not specify them is loaded if the user did: by ``pretrained_window_sizes``, or
    by a published name together with that variant's own windows.  With other windows, the name
    leaves open if the weights were trained at the variant's windows or at these.

    Args:
        backbone: the model, built with or without pretrained windows.
        found: the pretrained windows of the file; None if it does not specify them.
        path: the file, for messages.
        own: the file is in our layout, and so of a model that was built as this one is.
        suggestion: pretrained windows that the file may have, for messages.

    Raises:
        ValueError: neither the file nor the model specifies them, or the two differ.
    """
    stages = len(backbone.layers)
    configured, assumed = backbone.pretrained_window_sizes, backbone.pretrained_windows_assumed
    if found is None and not (backbone.pretrained_windows_stated or own and not assumed):
        asked = list(_setting(backbone.window_sizes))
        raise ValueError(
            f"{path} does not specify the windows it was trained with, which its position bias "
            "depends on: give them as pretrained_window_sizes "
            "(MODEL.SWINV2.PRETRAINED_WINDOW_SIZES), "
            + (f"{suggestion} as published, or " if suggestion else "")
            + f"{asked} if it was trained at the windows of this model.  (The name of a published "
            "variant, MODEL.SWINV2.VARIANT, states them only together with the variant's own "
            "windows, without MODEL.SWINV2.WINDOW_SIZE.)"
        )
    if found is None:
        return PretrainedWindows(configured, "the model; the file does not specify them")
    if assumed or found.sizes[:stages] == configured:
        return found
    setting = _setting(found.sizes)
    raise ValueError(
        f"{path}: the model has the pretrained windows {describe(configured)}, but the weights "
        f"were trained with {describe(found.sizes[:stages])} (from {found.source}): choose the "
        "variant of the weights (MODEL.SWINV2.VARIANT), or give pretrained_window_sizes "
        f"(MODEL.SWINV2.PRETRAINED_WINDOW_SIZES) {setting}; the window itself may differ.  (If the "
        "source is wrong, swinv2 convert --pretrained-window-sizes writes the "
        "correct ones to a file.)"
    )


def _setting(windows: tuple[Size, ...]) -> tuple[int | Size, ...]:
    """Return windows as a user gives them."""
    return tuple(h if h == w else (h, w) for h, w in windows)


def apply_pretrained_windows(backbone: SwinV2, pretrained: PretrainedWindows) -> None:
    """Set the pretrained windows of a model whose last stages may not be built."""
    windows = pretrained.sizes[: backbone.num_stages]
    unbuilt = backbone.num_stages - len(windows)
    backbone.set_pretrained_window_sizes((*windows, *windows[-1:] * unbuilt))
