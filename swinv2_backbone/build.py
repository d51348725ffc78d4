"""Published models by name, with random or published weights."""

from __future__ import annotations

import os
from collections.abc import Sequence

from swinv2_backbone.backbone import FEATURES, SwinV2, WindowSizes
from swinv2_backbone.checkpoints.fetch import fetch
from swinv2_backbone.checkpoints.load import load_checkpoint, load_into
from swinv2_backbone.checkpoints.read import Checkpoint, read_checkpoint
from swinv2_backbone.checkpoints.stem import STEM, channels_of
from swinv2_backbone.classifier import SwinV2Classifier
from swinv2_backbone.variants import RELEASES, VARIANTS, Variant, variant_name

PUBLISHED = "mmpretrain"  # stands for the file that mmpretrain publishes for a variant


def build_backbone(
    name: str,
    *,
    weights: str | os.PathLike | None = None,
    window_size: WindowSizes | None = None,
    pretrained_window_sizes: WindowSizes | None = None,
    small_map_rule: str = "per_axis",
    out_features: Sequence[str] = FEATURES,
    drop_path_rate: float = 0.0,
    frozen_stages: int = -1,
    activation_checkpointing: bool = False,
    in_channels: int = 3,
    stem: str | None = None,
    kernel: str = "auto",
) -> SwinV2:
    """Build a published variant.

    Args:
        name: a key of ``VARIANTS``, or the seed name of a published checkpoint.
        weights: "mmpretrain" for the published file of this variant (downloaded once); a source
            as for :func:`swinv2_backbone.load_checkpoint`; or None for random weights.
        window_size: default: the windows of the variant.
        pretrained_window_sizes: default: those of the variant, whatever ``window_size`` is.
        stem: the rule for weights of another number of channels, see
            :func:`swinv2_backbone.load_checkpoint`.
        others: see :class:`SwinV2`.

    Raises:
        ValueError: the name is unknown, an argument is out of its range, or the weights are
            rejected.
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
        small_map_rule=small_map_rule,
        out_features=out_features,
        drop_path_rate=drop_path_rate,
        frozen_stages=frozen_stages,
        activation_checkpointing=activation_checkpointing,
        extra_norm_every=variant.extra_norm_every,
        in_channels=in_channels,
        kernel=kernel,
    )
    if pretrained_window_sizes is None and not has_windows_of(backbone, variant):
        # Weights of this variant may have been trained further at these windows.
        backbone.set_pretrained_window_sizes(variant.pretrained_window_sizes, stated=False)
    if weights is not None:
        load_checkpoint(backbone, _source(name, weights), stem=stem)
    return backbone


def has_windows_of(backbone: SwinV2, variant: Variant) -> bool:
    """Return True if all built stages have the variant's own windows."""
    return all(window == (m, m) for window, m in zip(backbone.window_sizes, variant.window_sizes))


def build_classifier(
    name: str,
    *,
    weights: str | os.PathLike | None = None,
    num_classes: int | None = None,
    window_size: WindowSizes | None = None,
    pretrained_window_sizes: WindowSizes | None = None,
    small_map_rule: str = "per_axis",
    in_channels: int | None = None,
    stem: str | None = None,
) -> SwinV2Classifier:
    """Build the ImageNet classifier of a published variant.

    Args:
        name, weights, window_size, pretrained_window_sizes, small_map_rule, stem: see
            :func:`build_backbone`.
        num_classes: default: that of the head in the weights; without one, that of the published
            checkpoint (1000 if there is none).
        in_channels: channels or bands of the images; default: those of the weights, or 3.

    Raises:
        ValueError, OSError: see :func:`build_backbone`.
    """
    checkpoint = None if weights is None else read_checkpoint(fetch(_source(name, weights)))
    if in_channels is None:
        in_channels = 3 if checkpoint is None else channels_of(checkpoint) or 3
    backbone = build_backbone(
        name,
        window_size=window_size,
        pretrained_window_sizes=pretrained_window_sizes,
        small_map_rule=small_map_rule,
        out_features=FEATURES[-1:],
        in_channels=in_channels,
    )
    if num_classes is None and checkpoint is not None and "weight" in checkpoint.head:
        num_classes = len(checkpoint.head["weight"])
    elif num_classes is None:
        release = RELEASES.get(variant_name(name))
        num_classes = release.num_classes if release else 1000
    classifier = SwinV2Classifier(backbone, num_classes)
    if checkpoint is not None:
        load_into(classifier, checkpoint, stem=stem)
    return classifier


def model_for(
    checkpoint: Checkpoint,
    *,
    window_size: WindowSizes | None = None,
    pretrained_window_sizes: WindowSizes | None = None,
    small_map_rule: str | None = None,
    in_channels: int | None = None,
) -> SwinV2 | SwinV2Classifier:
    """Build a model of a checkpoint's size with random weights; a classifier if it has a head.

    Args:
        window_size: default: the windows of the file's own model if the file has them, else the
            pretrained windows.
        pretrained_window_sizes: default: the file's.
        small_map_rule: default: that of the file's own model if the file has it, else "per_axis".
        in_channels: default: the channels of the file.

    Raises:
        ValueError: tensors that determine the size are missing, or the pretrained windows are
            unknown.
    """
    size, pretrained = checkpoint.architecture, checkpoint.pretrained_windows
    if size is None:
        raise ValueError(f"{checkpoint.path}: tensors that determine the model's size are missing")
    if pretrained_window_sizes is None:
        if pretrained is None:
            raise ValueError(
                f"{checkpoint.path} does not specify the windows it was trained with: give its "
                "variant or its pretrained window sizes"
            )
        pretrained_window_sizes = pretrained.sizes
    if window_size is None:
        trained = pretrained and pretrained.trained_windows
        window_size = trained or pretrained_window_sizes
    stages = FEATURES[: len(size.depths)]
    norms = [name for name in stages if f"norms.{name}.weight" in checkpoint.tensors]
    extra = [int(key.split(".")[3]) for key in checkpoint.tensors if key.endswith("norm3.weight")]
    backbone = SwinV2(
        size.embed_dim,
        size.depths,
        num_heads=size.num_heads,
        window_size=window_size,
        pretrained_window_sizes=pretrained_window_sizes,
        small_map_rule=small_map_rule or checkpoint.small_map_rule or "per_axis",
        out_features=norms or stages[-1:],
        extra_norm_every=min(extra) + 1 if extra else 0,
        in_channels=in_channels or checkpoint.tensors[STEM].shape[1],
    )
    if "weight" not in checkpoint.head:
        return backbone
    return SwinV2Classifier(backbone, len(checkpoint.head["weight"]))


def _source(name: str, weights: str | os.PathLike) -> str | os.PathLike:
    return f"swinv2://{variant_name(name)}" if weights == PUBLISHED else weights
