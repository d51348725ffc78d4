"""The setting of a measurement: model, window, size, dtype and mode, and the shapes that follow.

Legend: H, W image in pixels; h, w map of a stage in tokens; M window in tokens, the same in all
stages, because not every peer supports different ones.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from swinv2_backbone import VARIANTS, Variant
from swinv2_backbone.layers import PATCH_SIZE
from swinv2_backbone.packing import Size, shrink

MODES = ("forward", "training")  # eval and no_grad; forward and backward
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Setting:
    """The setting of one measurement.

    Attributes:
        model: A key of VARIANTS.
        window: M, for all stages.
        size: (H, W).
        batch: Number of images.
        dtype: A key of DTYPES: of model and images in forward, of autocast in training.
        mode: One of MODES.
        device: "cpu" or "cuda".
        threads: PyTorch's threads on the CPU.
    """

    model: str
    window: int
    size: Size
    batch: int = 1
    dtype: str = "float32"
    mode: str = "forward"
    device: str = "cpu"
    threads: int = 1

    @property
    def variant(self) -> Variant:
        return VARIANTS[self.model]

    @property
    def maps(self) -> tuple[Size, ...]:
        """(h, w) of every stage."""
        strides = [PATCH_SIZE * 2**stage for stage in range(len(self.variant.depths))]
        return tuple(shrink([self.size], stride)[0] for stride in strides)

    @property
    def pixels(self) -> int:
        """Pixels of the whole batch."""
        return self.batch * self.size[0] * self.size[1]

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def training(self) -> bool:
        return self.mode == "training"

    def __str__(self) -> str:
        shown = f"{self.model} window {self.window}, {size_name(self.size)}, batch {self.batch}"
        return f"{shown}, {self.dtype}, {self.mode}, {self.device}, {self.threads} threads"

    def as_json(self) -> dict[str, Any]:
        """Return the attributes that differ from their defaults."""
        content = asdict(self) | {"size": list(self.size)}
        defaults = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in content.items() if value != defaults[name]}

    @classmethod
    def from_json(cls, content: dict) -> Setting:
        return cls(**(content | {"size": tuple(content["size"])}))


def parse_size(text: str) -> Size:
    """Return (768, 1280), height and width, for "768x1280".

    Raises:
        ValueError: The text is not HxW.
    """
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise ValueError(f"a size is HEIGHTxWIDTH in pixels, such as 768x1280, not {text!r}")
    return int(found[1]), int(found[2])


def size_name(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def is_whole(setting: Setting) -> bool:
    """Return whether nothing is padded: every axis is at most one window, or whole windows."""
    lengths = [length for size in setting.maps for length in size]
    whole_patches = all(length % (PATCH_SIZE * 8) == 0 for length in setting.size)
    return whole_patches and all(n <= setting.window or n % setting.window == 0 for n in lengths)


def shifts_alike(setting: Setting) -> bool:
    """Return whether both axes of every map are shifted, or neither; Hugging Face requires it."""
    return all((h > setting.window) == (w > setting.window) for h, w in setting.maps)


def nearest_whole(setting: Setting) -> Setting:
    """Return the setting at the nearest size where every peer computes correct attention.

    There every map is whole windows, and both of its axes are longer than a window, or neither is.
    """
    if is_whole(setting) and shifts_alike(setting):
        return setting
    unit = PATCH_SIZE * 8 * setting.window  # pixels of a window of the last stage
    counts = [max(1, -(-(2 * length - unit) // (2 * unit))) for length in setting.size]
    if min(counts) == 1:
        counts = [1, 1]
    return replace(setting, size=(unit * counts[0], unit * counts[1]))
