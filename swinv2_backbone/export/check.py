"""Whether a file gives what the model gives, at sizes that it was not traced at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from swinv2_backbone.layers import PATCH_SIZE
from swinv2_backbone.windows import Size

LIMIT = 1e-4  # of a difference; of larger numbers than 1, relative to the largest of the output

Run = Callable[[Tensor], Mapping[str, Tensor]]


class Difference(NamedTuple):
    """How far one output is from the model's, at one size.

    Attributes:
        images: (B, C_in, H, W), their shape.
        output: its name.
        shape: its shape.
        absolute: max |found - expected|; infinite for another shape or what is no number.
        largest: max |expected|.
    """

    images: tuple[int, ...]
    output: str
    shape: tuple[int, ...]
    absolute: float
    largest: float

    @property
    def is_small(self) -> bool:
        return self.absolute <= LIMIT * max(1.0, self.largest)

    def __str__(self) -> str:
        batch, _, height, width = self.images
        return (
            f"{batch} of {height}x{width}: {self.output} {self.shape} differs by "
            f"{self.absolute:.1e}, its largest value is {self.largest:.3g}"
        )


def check_shapes(windows: Sequence[Size], channels: int = 3) -> list[tuple[int, int, int, int]]:
    """(B, C_in, H, W) three times: less than a window, no multiple of 32, several windows.

    The first is less than a window of the first stage, the last more than one of the last stage.
    The second is never small: it is the one to trace, and a compiler binds its code to maps that
    are one token long where it meets them.

    Args:
        windows: of each stage, in tokens.
        channels: of the images.
    """
    h, w = (PATCH_SIZE * length for length in windows[0])
    last_h, last_w = (PATCH_SIZE * 2 ** (len(windows) - 1) * length for length in windows[-1])
    return [
        (1, channels, max(h - 3, 1), max(w - 9, 1)),
        (2, channels, max(2 * h + 13, 77), max(3 * w + 7, 103)),
        (3, channels, max(last_h, 2 * h) + 64, max(last_w, 2 * w) + 32),
    ]


def random_pixels(shape: Sequence[int]) -> Tensor:
    """Whole numbers from 0 to 255 in float32, the same for the same shape."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, tuple(shape), generator=generator).float()


@torch.no_grad()
def compare(found: Run, expected: Run, batches: Sequence[Tensor]) -> list[Difference]:
    """The differences of all outputs for all batches (B, C_in, H, W).

    Raises:
        ValueError: the outputs have other names.
    """
    differences = []
    for images in batches:
        ours, theirs = expected(images), found(images)
        if list(ours) != list(theirs):
            raise ValueError(f"the file has the outputs {list(theirs)}, the model {list(ours)}")
        for name, value in ours.items():
            absolute = _largest(theirs[name] - value) if _alike(theirs[name], value) else torch.inf
            shapes = tuple(images.shape), name, tuple(value.shape)
            differences.append(Difference(*shapes, absolute, _largest(value)))
    return differences


def _alike(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and found.dtype == expected.dtype


def _largest(x: Tensor) -> float:
    """max |x|; 0 of nothing, infinite if there is what is no number."""
    return x.double().abs().nan_to_num(nan=torch.inf).max().item() if x.numel() else 0.0
