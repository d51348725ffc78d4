"""Change of the number of channels of the patch embedding, by a stated rule.

Every rule is linear: the file's n channels see ``A x`` of the model's m bands x, with a fixed
matrix A of shape (n, m), so that the weight (C, n, 4, 4) becomes (C, m, 4, 4) by a product with A.
The model then computes of an image x what the file's model computes of A x.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from swinv2_backbone.checkpoints.read import Checkpoint

STEM = "patch_embed.proj.weight"
STEM_RULES = ("repeat", "mean", "zero")
STEM_SETTINGS = (
    'stem="repeat", "mean" or "zero" (MODEL.SWINV2.STEM, train.stem, --stem; see docs/BANDS.md)'
)


def check_stem_rule(rule: str | None) -> None:
    """Raise ValueError unless ``rule`` is one of ``STEM_RULES`` or None."""
    if rule is not None and rule not in STEM_RULES:
        raise ValueError(f"stem must be one of {', '.join(STEM_RULES)}, or None, got {rule!r}")


def stem_matrix(channels: int, bands: int, rule: str) -> Tensor:
    """Return A (channels, bands): the bands that each channel of the file sees, with weights.

    Args:
        channels: the channels of the file.
        bands: the channels of the model.
        rule: "repeat": the channels are assigned to the bands in turn; a channel with several
            bands sees their mean, and with fewer bands than channels a band has several channels.
            "mean": every channel sees the mean of all bands.  "zero": each channel sees the band
            at its own place; the other bands are not seen, and the other channels see 0.

    Raises:
        ValueError: the rule is unknown.
    """
    check_stem_rule(rule)
    channel, band = torch.arange(channels)[:, None], torch.arange(bands)[None]
    if rule == "mean":
        return torch.full((channels, bands), 1 / bands)
    if rule == "zero":
        return (channel == band).float()
    turns = min(channels, bands)
    seen = (channel % turns == band % turns).float()
    return seen / seen.sum(dim=1, keepdim=True)


def channels_of(checkpoint: Checkpoint) -> int | None:
    """Return the number of channels of a checkpoint's images; None if its stem is missing."""
    weight = checkpoint.tensors.get(STEM)
    return None if weight is None or weight.ndim != 4 else weight.shape[1]


def with_stem(
    checkpoint: Checkpoint, bands: int, rule: str | None
) -> tuple[Checkpoint, str | None]:
    """Change the patch embedding of a checkpoint to another number of channels.

    Args:
        checkpoint: the file's content, which is not changed.
        bands: the channels of the model.
        rule: see :func:`stem_matrix`; None leaves the checkpoint as it is.

    Returns:
        The checkpoint for ``bands`` channels, and a description of the change; None if there is
        none.
    """
    check_stem_rule(rule)
    channels = channels_of(checkpoint)
    if rule is None or not channels or channels == bands:
        return checkpoint, None
    weight = checkpoint.tensors[STEM]
    matrix = stem_matrix(channels, bands, rule).to(weight.device)
    changed = torch.einsum("cnhw,nm->cmhw", weight.float(), matrix).to(weight.dtype)
    found = dataclasses.replace(checkpoint, tensors={**checkpoint.tensors, STEM: changed})
    return found, f"changed from {channels} to {bands} channels by the rule {rule!r}"
