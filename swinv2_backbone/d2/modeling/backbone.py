"""SwinV2 as a Detectron2 ``Backbone``, and the builders registered for yacs configs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, META_ARCH_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import Tensor, nn

from swinv2_backbone import backbone as core
from swinv2_backbone.build import build_backbone
from swinv2_backbone.d2.modeling.image_sizes import attached_sizes, can_hand_over_sizes
from swinv2_backbone.d2.modeling.trainer_keys import log_ignored
from swinv2_backbone.packing import Size
from swinv2_backbone.variants import VARIANTS, variant_name

NO_MASK = "MODEL.SWINV2.MASK_PADDING False (mask_padding=False of D2SwinV2)"


class D2SwinV2(Backbone):
    """A SwinV2 of a published or custom size that returns ``res2`` ... ``res5`` to Detectron2.

    Detectron2 normalizes the images of a batch and pads them with zeros to a common size.  The
    features of an image depend neither on its padding nor on the other images of the batch: a model
    built by :func:`swinv2_backbone.d2.build_model`, the trainer or the predictor attaches the true
    sizes to a batch.  For a batch without them, this backbone recovers the sizes from the zeros.

    Args:
        variant: a key of ``swinv2_backbone.VARIANTS`` or a seed name; None for a custom size.
        embed_dim, depths, num_heads: the custom size; only without ``variant``.
        window_size: one number, one per stage, or one (height, width) per stage.  Default: the
            variant's windows; required for a custom size.
        mask_padding: exclude padding from attention; False treats it as part of the image, as other
            backbones do.
        zeros_are_padding: recover the sizes of a batch without sizes from its zeros; False, for a
            mean that a pixel can equal, refuses such a batch.
        others: see :class:`swinv2_backbone.SwinV2`.

    Raises:
        ValueError: both a variant and a size are given or neither is, or an argument is out of
            its range.
    """

    def __init__(
        self,
        variant: str | None = None,
        *,
        embed_dim: int | None = None,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        window_size: core.WindowSizes | None = None,
        pretrained_window_sizes: core.WindowSizes | None = None,
        small_map_rule: str = "per_axis",
        out_features: Sequence[str] = core.FEATURES,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        activation_checkpointing: bool = False,
        in_channels: int = 3,
        kernel: str = "auto",
        mask_padding: bool = True,
        zeros_are_padding: bool = True,
    ):
        super().__init__()
        options: dict[str, Any] = dict(
            window_size=window_size,
            pretrained_window_sizes=pretrained_window_sizes,
            small_map_rule=small_map_rule,
            out_features=out_features,
            drop_path_rate=drop_path_rate,
            frozen_stages=frozen_stages,
            activation_checkpointing=activation_checkpointing,
            in_channels=in_channels,
            kernel=kernel,
        )
        size = {"embed_dim": embed_dim, "depths": depths, "num_heads": num_heads}
        given = [name for name, value in size.items() if value is not None]
        if variant is not None:
            if given:
                raise ValueError(f"variant {variant!r} fixes {', '.join(given)}: give either")
            self.swinv2 = build_backbone(variant, **options)
        elif embed_dim is None or depths is None or num_heads is None or window_size is None:
            raise ValueError(
                "without a variant, embed_dim, depths, num_heads and window_size are "
                f"needed, got only {given or 'none of them'}"
            )
        else:
            self.swinv2 = core.SwinV2(embed_dim, depths, num_heads=num_heads, **options)
        self.variant = variant
        self.mask_padding = mask_padding
        self.zeros_are_padding = zeros_are_padding
        # The names of Detectron2's own backbones, which projects read; also for output_shape().
        self._out_features = list(self.swinv2.out_features)
        self._out_feature_channels = dict(self.swinv2.channels)
        self._out_feature_strides = dict(self.swinv2.strides)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, C_in, H, W) -> name -> (B, C, ceil(H / stride), ceil(W / stride))."""
        return self.swinv2(images, self._sizes(images) if self.mask_padding else None)

    def _sizes(self, images: Tensor) -> list[Size]:
        sizes = attached_sizes(images)
        if sizes is None and not self.zeros_are_padding:
            raise ValueError(
                "a pixel can be exactly 0 and look like padding, and the batch has no true sizes: "
                f"build the model by swinv2_backbone.d2.build_model, or set {NO_MASK}"
            )
        return true_sizes(images) if sizes is None else sizes

    @property
    def size_divisibility(self) -> int:
        """0: any size is accepted.  (An FPN on top requires multiples of its own stride.)"""
        return 0


def feature_shapes(
    variant: str | None = None,
    embed_dim: int | None = None,
    out_features: Sequence[str] = core.FEATURES,
) -> dict[str, ShapeSpec]:
    """Return ``output_shape()`` of a :class:`D2SwinV2`, for the heads of a LazyConfig.

    Args:
        variant: a key of ``VARIANTS`` or a seed name; only read without ``embed_dim``.
        embed_dim: channels of res2.
        out_features: the features to return.

    Raises:
        ValueError: the variant is unknown, or neither variant nor embed_dim is given.
    """
    if embed_dim is None:
        if variant is None:
            raise ValueError("feature_shapes needs a variant or an embed_dim")
        embed_dim = VARIANTS[variant_name(variant)].embed_dim
    return {
        name: ShapeSpec(channels=embed_dim * 2**stage, stride=4 * 2**stage)
        for stage, name in enumerate(core.FEATURES)
        if name in out_features
    }


def true_sizes(images: Tensor) -> list[Size]:
    """Return the size of each image of a batch (B, C, H, W) without its zero padding.

    Rows at the bottom and columns at the right that are exactly zero in all channels are padding.
    (A normalized pixel is never zero, as ImageNet's means are not whole numbers.)  An image of
    zeros alone keeps its full size.
    """
    content = (images != 0).any(dim=1)  # (B, H, W)
    # argmax returns the first maximum: of the flipped axis, the last row with content.
    rows = content.any(dim=2).flip(1).to(torch.uint8).argmax(dim=1)
    cols = content.any(dim=1).flip(1).to(torch.uint8).argmax(dim=1)
    height, width = images.shape[-2:]
    return [
        (height - bottom, width - right)
        for bottom, right in torch.stack((rows, cols), dim=1).tolist()
    ]


def zero_is_a_pixel(mean: Sequence[float]) -> str:
    """Return the fault of a mean that a pixel can equal where zeros mean padding, or ""."""
    if not all(float(value).is_integer() for value in mean):
        return ""
    return (
        f"with MODEL.PIXEL_MEAN {list(mean)} a pixel can be exactly 0 and look like padding, and "
        f"the meta-architecture does not pass on the true sizes of the images: set {NO_MASK}"
    )


@BACKBONE_REGISTRY.register()
def build_swinv2_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> D2SwinV2:
    """Build a SwinV2 without a neck from ``cfg.MODEL.SWINV2``.

    ``OUT_FEATURES`` defaults to the features that the head of a ``SemanticSegmentor`` uses, because
    unused weights break distributed training; otherwise it defaults to all four.
    """
    default: Sequence[str] = core.FEATURES
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        used = cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES
        if used and set(used) <= set(core.FEATURES):  # otherwise features of a neck
            default = used
    return _build_swinv2(cfg, input_shape, cfg.MODEL.SWINV2.OUT_FEATURES or default)


@BACKBONE_REGISTRY.register()
def build_swinv2_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a SwinV2 with an FPN that returns p2 ... p6."""
    return _build_fpn(cfg, input_shape, lambda bottom_up: LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_retinanet_swinv2_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a SwinV2 with RetinaNet's FPN, which returns p3 ... p7 and computes p6 from res5."""
    if "res5" not in cfg.MODEL.FPN.IN_FEATURES:
        raise ValueError(
            "RetinaNet's p6 is computed from res5: add it to MODEL.FPN.IN_FEATURES "
            f"{list(cfg.MODEL.FPN.IN_FEATURES)}"
        )

    def p6_and_p7(bottom_up: D2SwinV2) -> LastLevelP6P7:
        return LastLevelP6P7(bottom_up.output_shape()["res5"].channels, cfg.MODEL.FPN.OUT_CHANNELS)

    return _build_fpn(cfg, input_shape, p6_and_p7)


def _build_swinv2(cfg: CfgNode, input_shape: ShapeSpec, out_features: Sequence[str]) -> D2SwinV2:
    log_ignored(cfg)
    node, name = cfg.MODEL.SWINV2, cfg.MODEL.META_ARCHITECTURE
    known = name in META_ARCH_REGISTRY and can_hand_over_sizes(META_ARCH_REGISTRY.get(name))
    fault = zero_is_a_pixel(cfg.MODEL.PIXEL_MEAN)
    if node.MASK_PADDING and fault and not known:
        raise ValueError(fault)
    return D2SwinV2(
        node.VARIANT,
        embed_dim=node.EMBED_DIM,
        depths=node.DEPTHS,
        num_heads=node.NUM_HEADS,
        window_size=node.WINDOW_SIZE,
        pretrained_window_sizes=node.PRETRAINED_WINDOW_SIZES,
        small_map_rule=node.SMALL_MAP_RULE,
        out_features=out_features,
        drop_path_rate=node.DROP_PATH_RATE,
        frozen_stages=node.FROZEN_STAGES,
        activation_checkpointing=node.ACTIVATION_CHECKPOINTING,
        in_channels=input_shape.channels,
        kernel=node.KERNEL,
        mask_padding=node.MASK_PADDING,
        zeros_are_padding=not fault,
    )


def _build_fpn(
    cfg: CfgNode, input_shape: ShapeSpec, top_block: Callable[[D2SwinV2], nn.Module]
) -> FPN:
    in_features = cfg.MODEL.FPN.IN_FEATURES
    if not in_features or any(name not in core.FEATURES for name in in_features):
        raise ValueError(
            f"MODEL.FPN.IN_FEATURES {list(in_features)} must be some of {', '.join(core.FEATURES)}"
        )
    out_features = cfg.MODEL.SWINV2.OUT_FEATURES or in_features
    # The weights of a feature that the FPN does not use get no gradient, which distributed
    # training does not support; a feature that the backbone does not return cannot be used.
    if set(in_features) != set(out_features):
        raise ValueError(
            f"MODEL.FPN.IN_FEATURES {list(in_features)} must equal MODEL.SWINV2.OUT_FEATURES "
            f"{list(out_features)}, or leave the latter None"
        )
    bottom_up = _build_swinv2(cfg, input_shape, out_features)
    return FPN(
        bottom_up=bottom_up,
        in_features=in_features,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block(bottom_up),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
