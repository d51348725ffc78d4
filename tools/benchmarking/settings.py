"""What is measured: one model at one window, size, dtype and mode, and the shapes that follow.

Legend: H, W image in pixels; h, w map of a stage in tokens; M window in tokens, the same in all
stages, as not every peer knows another.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace

import torch

from swinv2_backbone import VARIANTS, Variant
from swinv2_backbone.layers import PATCH_SIZE
from swinv2_backbone.windows import Size, shrink

MODES = ("forward", "training")  # eval and no_grad; forward and backward
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Setting:
    """One comparison.

    Attributes:
        model: a key of VARIANTS.
        window: M of all stages.
        size: (H, W).
        batch: images.
        dtype: a key of DTYPES; model and images have it in forward, autocast in training.
        mode: one of MODES.
        device: "cpu" or "cuda".
        threads: of PyTorch on the CPU.
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
        """Of the whole batch."""
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

    def as_json(self) -> dict:
        return asdict(self) | {"size": list(self.size)}

    @classmethod
    def from_json(cls, content: dict) -> Setting:
        return cls(**(content | {"size": tuple(content["size"])}))


def parse_size(text: str) -> Size:
    """ "768x1280" -> (768, 1280), height and width.

    Raises:
        ValueError: it is not HxW.
    """
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise ValueError(f"a size is HEIGHTxWIDTH in pixels, such as 768x1280, not {text!r}")
    return int(found[1]), int(found[2])


def size_name(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def is_whole(setting: Setting) -> bool:
    """Whether nothing is padded: along both axes a map is less than one window, or whole ones."""
    lengths = [length for size in setting.maps for length in size]
    whole_patches = all(length % (PATCH_SIZE * 8) == 0 for length in setting.size)
    return whole_patches and all(n <= setting.window or n % setting.window == 0 for n in lengths)


def shifts_alike(setting: Setting) -> bool:
    """Whether both axes of every map are shifted, or neither is; Hugging Face cannot else."""
    return all((h > setting.window) == (w > setting.window) for h, w in setting.maps)


def nearest_whole(setting: Setting) -> Setting:
    """The setting at the nearest size where every peer's maths is right, itself if it is one.

    There every map is whole windows, and both of its axes are more than one window, or neither is.
    """
    if is_whole(setting) and shifts_alike(setting):
        return setting
    unit = PATCH_SIZE * 8 * setting.window  # pixels of a window of the last stage
    counts = [max(1, -(-(2 * length - unit) // (2 * unit))) for length in setting.size]
    if min(counts) == 1:
        counts = [1, 1]
    return replace(setting, size=(unit * counts[0], unit * counts[1]))
