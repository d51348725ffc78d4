"""Published models by name, with random or published weights."""

from __future__ import annotations

import os
from collections.abc import Sequence

from swinv2_backbone.backbone import FEATURES, SwinV2, WindowSizes
from swinv2_backbone.checkpoints import load_checkpoint
from swinv2_backbone.classifier import SwinV2Classifier
from swinv2_backbone.variants import RELEASES, VARIANTS, variant_name

PUBLISHED = "mmpretrain"  # as weights: the file that mmpretrain publishes for the variant


def build_backbone(
    name: str,
    *,
    weights: str | os.PathLike | None = None,
    window_size: WindowSizes | None = None,
    pretrained_window_sizes: WindowSizes | None = None,
    out_features: Sequence[str] = FEATURES,
    drop_path_rate: float = 0.0,
    frozen_stages: int = -1,
    activation_checkpointing: bool = False,
    in_channels: int = 3,
) -> SwinV2:
    """A published variant.

    Args:
        name: a key of ``VARIANTS``, or the seed name of a published checkpoint.
        weights: "mmpretrain", for the published file of this variant (fetched once); or what
            :func:`swinv2_backbone.load_checkpoint` takes; or None, for random weights.
        window_size: default: the windows of the variant.
        pretrained_window_sizes: default: those of the variant, whatever ``window_size`` is.
        others: see :class:`SwinV2`.

    Raises:
        ValueError: the name is unknown, an argument is out of its range, or the weights are
            refused.
        OSError: the weights cannot be fetched or read.
    """
    variant = VARIANTS[variant_name(name)]
    backbone = SwinV2(
        variant.embed_dim,
        variant.depths,
        num_heads=variant.num_heads,
        window_size=variant.window_sizes if window_size is None else window_size,
        pretrained_window_sizes=(
            variant.pretrained_window_sizes
            if pretrained_window_sizes is None
            else pretrained_window_sizes
        ),
        out_features=out_features,
        drop_path_rate=drop_path_rate,
        frozen_stages=frozen_stages,
        activation_checkpointing=activation_checkpointing,
        extra_norm_every=variant.extra_norm_every,
        in_channels=in_channels,
    )
    if weights is not None:
        load_checkpoint(backbone, _source(name, weights))
    return backbone


def build_classifier(
    name: str,
    *,
    weights: str | os.PathLike | None = None,
    num_classes: int | None = None,
    window_size: WindowSizes | None = None,
    pretrained_window_sizes: WindowSizes | None = None,
) -> SwinV2Classifier:
    """The ImageNet classifier of a published variant.

    Args:
        name, weights, window_size, pretrained_window_sizes: see :func:`build_backbone`.
        num_classes: default: those of the published checkpoint (1000 where there is none).

    Raises:
        ValueError, OSError: see :func:`build_backbone`.
    """
    backbone = build_backbone(
        name,
        window_size=window_size,
        pretrained_window_sizes=pretrained_window_sizes,
        out_features=FEATURES[-1:],
    )
    if num_classes is None:
        release = RELEASES.get(variant_name(name))
        num_classes = release.num_classes if release else 1000
    classifier = SwinV2Classifier(backbone, num_classes)
    if weights is not None:
        load_checkpoint(classifier, _source(name, weights))
    return classifier


def _source(name: str, weights: str | os.PathLike) -> str | os.PathLike:
    return f"swinv2://{variant_name(name)}" if weights == PUBLISHED else weights
