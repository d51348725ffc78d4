"""The numbers that normalize pixels: ImageNet's, or one for each channel or band."""

from __future__ import annotations

from collections.abc import Sequence

from swinv2_backbone.variants import PIXEL_MEAN, PIXEL_STD


def normalization(
    channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Sequence[float], Sequence[float]]:
    """Return the mean and the standard deviation of each channel; ImageNet's for None.

    Raises:
        ValueError: there is not one number for each channel, or a deviation is not above 0.
    """
    if mean is None and std is None and channels == len(PIXEL_MEAN):
        return PIXEL_MEAN, PIXEL_STD
    if mean is None or std is None or not len(mean) == len(std) == channels:
        counts = [None if numbers is None else len(numbers) for numbers in (mean, std)]
        raise ValueError(
            f"the model takes {channels} channels or bands: give pixel_mean and pixel_std "
            f"(--pixel-mean, --pixel-std), one number for each, got {counts[0]} and {counts[1]}"
        )
    if not all(number > 0 for number in std):
        raise ValueError(f"pixel_std must be above 0, got {list(std)}")
    return mean, std
