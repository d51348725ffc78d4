"""Comparison of an exported file with the model, also at sizes that were not traced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from swinv2_backbone.layers import PATCH_SIZE
from swinv2_backbone.packing import Size

LIMIT = 1e-4  # largest difference; relative to the output's largest value if that is above 1

Run = Callable[[Tensor], Mapping[str, Tensor]]
# (found, expected) -> found, in the order of what is expected
Align = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Mapping[str, Tensor]]


def as_found(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return what was found: its order counts."""
    return found


class Difference(NamedTuple):
    """The difference between an output of the file and of the model, at one size.

    Attributes:
        images: the shape of the images, (B, C_in, H, W).
        output: the name of the output.
        shape: the shape of the output.
        absolute: max |found - expected|; infinite for NaN or another shape or dtype.
        largest: max |expected|.
    """

    images: tuple[int, ...]
    output: str
    shape: tuple[int, ...]
    absolute: float
    largest: float

    @property
    def relative(self) -> float:
        """The difference, relative to the largest value if that is above 1."""
        return self.absolute / max(1.0, self.largest)

    @property
    def is_small(self) -> bool:
        return self.relative <= LIMIT

    def __str__(self) -> str:
        batch, _, height, width = self.images
        return (
            f"{batch} of {height}x{width}: {self.output} {self.shape} differs by "
            f"{self.absolute:.1e}, its largest value is {self.largest:.3g}"
        )


def check_shapes(windows: Sequence[Size], channels: int = 3) -> list[tuple[int, int, int, int]]:
    """Return three shapes (B, C_in, H, W) that differ in batch size, height and width.

    The first is smaller than a window of the first stage; the third is larger than a window of the
    last stage.  The second is the one to trace; it is no multiple of 32, and never small, because a
    compiler specializes its code for maps of one token.

    Args:
        windows: the window of each stage, in tokens.
        channels: channels of the images.
    """
    h, w = (PATCH_SIZE * length for length in windows[0])
    last_h, last_w = (PATCH_SIZE * 2 ** (len(windows) - 1) * length for length in windows[-1])
    return [
        (1, channels, max(h - 3, 1), max(w - 9, 1)),
        (2, channels, max(2 * h + 13, 77), max(3 * w + 7, 103)),
        (3, channels, max(last_h, 2 * h) + 64, max(last_w, 2 * w) + 32),
    ]


def random_pixels(shape: Sequence[int]) -> Tensor:
    """Return whole numbers from 0 to 255 in float32, the same for the same shape."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, tuple(shape), generator=generator).float()


@torch.no_grad()
def compare(
    found: Run, expected: Run, batches: Sequence[Tensor], align: Align = as_found
) -> list[Difference]:
    """Return the differences of all outputs for all batches (B, C_in, H, W).

    Args:
        align: brings what was found into the order of what is expected.

    Raises:
        ValueError: the output names of the file and the model differ.
    """
    differences = []
    for images in batches:
        ours, theirs = expected(images), found(images)
        if sorted(ours) != sorted(theirs):
            raise ValueError(f"the file has the outputs {list(theirs)}, the model {list(ours)}")
        theirs = align(theirs, ours)
        for name, value in ours.items():
            absolute = _largest(theirs[name] - value) if _alike(theirs[name], value) else torch.inf
            differences.append(
                Difference(tuple(images.shape), name, tuple(value.shape), absolute, _largest(value))
            )
    return differences


def _alike(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and found.dtype == expected.dtype


def _largest(x: Tensor) -> float:
    """Return max |x|: 0 for an empty tensor, infinite with NaN."""
    return x.double().abs().nan_to_num(nan=torch.inf).max().item() if x.numel() else 0.0
