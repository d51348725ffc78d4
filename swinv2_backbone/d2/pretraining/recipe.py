"""The options of SimMIM pre-training, in the paper's terms: images, masks, learning rate.

"SimMIM: a Simple Framework for Masked Image Modeling", arXiv 2111.09886.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler

from swinv2_backbone.checkpoints.normalization import normalization
from swinv2_backbone.d2.data.loading.loader import MAX_BROKEN
from swinv2_backbone.images.bands import BANDS
from swinv2_backbone.simmim import MASK_PATCH, MASK_RATIO, check_masking
from swinv2_backbone.variants import PIXEL_MEAN, PIXEL_STD

# SimMIM, section 4.1.1 (100 epochs with a cosine), and the configs/swin_base__100ep of its code:
LR, LR_BATCH = 8e-4, 2048  # learning rate at this batch size; it scales linearly
WARMUP_SHARE = 0.1  # 10 of 100 epochs
FIRST_LR, LAST_LR = 1 / 200, 1 / 20  # relative to the highest
LEAST = {
    **dict.fromkeys(("iterations", "batch_size", "period"), 1),
    **dict.fromkeys(("num_workers", "seed", "max_nonfinite_steps"), 0),
}
AMP_DTYPES = ("bfloat16", "float16")
FORMATS = ("RGB", BANDS)
# The options of runs that were saved before there was a choice.
BEFORE_BANDS = {"image_format": "RGB", "pixel_mean": PIXEL_MEAN, "pixel_std": PIXEL_STD}


@dataclass(frozen=True)
class Recipe:
    """The options of a pre-training run.

    Attributes:
        iterations: steps of the optimizer.
        batch_size: images per step, over all processes.
        image_size: side of the square crops in pixels.
        image_format: "RGB", or "BANDS" for all bands of TIFF files and NumPy arrays as they are
            stored, see :func:`swinv2_backbone.d2.read_bands`.
        pixel_mean, pixel_std: mean and standard deviation of each channel or band.
        mask_patch, mask_ratio: see :func:`swinv2_backbone.simmim.random_masks`.
        lr: highest learning rate; None: the paper's, 8e-4 at a batch size of 2048 and proportional
            to it.
        warmup: iterations during which the learning rate rises; None: a tenth of all.
        weight_decay: weight decay; norms, biases and similar parameters have none.
        amp_dtype: dtype of mixed precision, "bfloat16" or "float16" (GPU only); None: float32.
        seed: seed of the order of the images, their crops and masks.
        num_workers: processes that load images, per training process.
        period: iterations between checkpoints, and between pictures.
        max_nonfinite_steps: steps that may be skipped because the loss or a gradient is not finite.
        max_broken: share of the images that may be broken; they are skipped and reported.

    Raises:
        ValueError: a value is out of range.
    """

    iterations: int
    batch_size: int
    image_size: int = 192
    image_format: str = "RGB"
    pixel_mean: Sequence[float] = PIXEL_MEAN
    pixel_std: Sequence[float] = PIXEL_STD
    mask_patch: int = MASK_PATCH
    mask_ratio: float = MASK_RATIO
    lr: float | None = None
    warmup: int | None = None
    weight_decay: float = 0.05
    amp_dtype: str | None = None
    seed: int = 0
    num_workers: int = 4
    period: int = 1000
    max_nonfinite_steps: int = 0
    max_broken: float = MAX_BROKEN

    def __post_init__(self) -> None:
        check_masking(self.image_size, self.mask_patch, self.mask_ratio)
        if self.image_format not in FORMATS:
            raise ValueError(
                f"image_format must be one of {', '.join(FORMATS)}, got {self.image_format!r}"
            )
        channels = 3 if self.bands is None else self.bands
        normalization(channels, self.pixel_mean, self.pixel_std)
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, got {getattr(self, name)}")
        if not 0 < self.highest_lr < math.inf:
            raise ValueError(f"lr must be more than 0, got {self.lr}")
        if not 0 <= self.warmup_iterations < self.iterations:
            raise ValueError(
                f"warmup must be 0 or more, and less than the {self.iterations} iterations, "
                f"got {self.warmup}"
            )
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be 0 or more, got {self.weight_decay}")
        if self.amp_dtype is not None and self.amp_dtype not in AMP_DTYPES:
            raise ValueError(
                f"amp_dtype must be one of {', '.join(AMP_DTYPES)}, got {self.amp_dtype!r}"
            )

    @property
    def bands(self) -> int | None:
        """Number of bands of the images; None for RGB."""
        return len(self.pixel_mean) if self.image_format == BANDS else None

    @property
    def highest_lr(self) -> float:
        return LR * self.batch_size / LR_BATCH if self.lr is None else self.lr

    @property
    def warmup_iterations(self) -> int:
        return int(WARMUP_SHARE * self.iterations) if self.warmup is None else self.warmup

    def schedule(self) -> WarmupParamScheduler:
        """Return the multiplier of the learning rate as a function of training progress."""
        return WarmupParamScheduler(
            CosineParamScheduler(1.0, LAST_LR), FIRST_LR, self.warmup_iterations / self.iterations
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the options that determine the weights; they must not change on resume."""
        free = ("lr", "warmup", "num_workers", "period", "max_broken", "max_nonfinite_steps")
        found = {key: value for key, value in dataclasses.asdict(self).items() if key not in free}
        found |= {key: tuple(found[key]) for key in ("pixel_mean", "pixel_std")}
        return {**found, "lr": self.highest_lr, "warmup": self.warmup_iterations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raise ValueError unless ``state`` comes from a run with the same options."""
        own, state = self.state_dict(), {**BEFORE_BANDS, **state}
        other = [f"{key} {state.get(key)}, not {own[key]}" for key in own if state[key] != own[key]]
        if other:
            raise ValueError(
                f"the run to resume has {'; '.join(other)}: use the same options, or start a "
                "new run from its weights (--init instead of --resume)"
            )
