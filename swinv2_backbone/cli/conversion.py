"""Checkpoint conversion: building the model of a file, and verifying a written file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from swinv2_backbone.backbone import SwinV2, WindowSizes
from swinv2_backbone.build import has_windows_of, model_for
from swinv2_backbone.checkpoints.architecture import architecture_of
from swinv2_backbone.checkpoints.fetch import fetch
from swinv2_backbone.checkpoints.load import load_into
from swinv2_backbone.checkpoints.read import read_checkpoint
from swinv2_backbone.checkpoints.report import LoadReport
from swinv2_backbone.classifier import SwinV2Classifier
from swinv2_backbone.variants import VARIANTS, variant_name

Model = SwinV2 | SwinV2Classifier


def read_model(
    source: str,
    *,
    variant: str | None = None,
    window_size: WindowSizes | None = None,
    pretrained_window_sizes: WindowSizes | None = None,
    prefix: str | None = None,
    in_channels: int | None = None,
    stem: str | None = None,
) -> tuple[Model, LoadReport]:
    """Return a model built for a checkpoint, with its weights, in eval mode.

    Args:
        source: A file, a folder, an address or ``swinv2://NAME``.
        variant: The published model that it is, or was fine-tuned from.
        window_size: Default: the file's, then the variant's.
        pretrained_window_sizes: Default: the file's, then the variant's.
        prefix: Prefix of the backbone's names, for a file with several backbones.
        in_channels: Channels or bands of the model; default: the file's.
        stem: Rule for a file of another number, see :func:`swinv2_backbone.load_checkpoint`.

    Raises:
        ValueError: The checkpoint is not of the variant, or its pretrained windows are unknown.
    """
    checkpoint = read_checkpoint(fetch(source), prefix)
    stated, overridden = checkpoint.pretrained_windows, pretrained_window_sizes is not None
    if variant is not None:
        published = VARIANTS[variant_name(variant)]
        named, found = architecture_of(variant), checkpoint.architecture
        if named != found:
            raise ValueError(f"--variant {variant} has {named}, but {source} has {found}")
        window_size = window_size or published.window_sizes
        pretrained_window_sizes = pretrained_window_sizes or published.pretrained_window_sizes
    if overridden and stated is not None:
        # The user may know better than, for example, a config.json from elsewhere.
        window_size = window_size or stated.trained_windows
        checkpoint.pretrained_windows = None
    model = model_for(
        checkpoint,
        window_size=window_size,
        pretrained_window_sizes=pretrained_window_sizes,
        in_channels=in_channels,
    ).eval()
    if variant is not None and not overridden:
        backbone = _backbone(model)
        own = has_windows_of(backbone, published)
        backbone.set_pretrained_window_sizes(backbone.pretrained_window_sizes, stated=own)
    return model, load_into(model, checkpoint, stem=stem)


def compare_with_file(model: Model, target: Path, left: list[str]) -> int:
    """Read a written file and check that every tensor and a feature map are bit-identical.

    Args:
        left: Names that the file's layout has no place for.

    Returns:
        The number of tensors.

    Raises:
        ValueError: A tensor or the feature map differs.
    """
    checkpoint = read_checkpoint(target)
    again = model_for(checkpoint).eval()
    load_into(again, checkpoint)
    compared: nn.Module = model
    if isinstance(model, SwinV2Classifier) and isinstance(again, SwinV2):
        compared = model.backbone  # the layout has no head
    expected, found = compared.state_dict(), again.state_dict()
    wrong = [
        name
        for name, value in expected.items()
        if name not in left and not (name in found and torch.equal(found[name], value))
    ]
    if difference := _different_feature(_backbone(model), _backbone(again)):
        wrong.append(f"the feature map {difference}")
    if wrong:
        raise ValueError(f"{target} differs from its source in {', '.join(wrong)}")
    return len(found)


@torch.no_grad()
def _different_feature(expected: SwinV2, found: SwinV2) -> str | None:
    """Return the name of the last feature map if both models have it and it differs."""
    side = 8 * max(max(window) for window in expected.window_sizes)
    images = torch.randn(1, expected.in_channels, side, side)
    before, after = expected(images), found(images)
    last = next(reversed(before))
    return last if last in after and not torch.equal(before[last], after[last]) else None


def _backbone(model: Model) -> SwinV2:
    return model.backbone if isinstance(model, SwinV2Classifier) else model
