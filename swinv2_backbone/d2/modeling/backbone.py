"""SwinV2 as a Detectron2 ``Backbone``, and the builders that configs name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import Tensor, nn

from swinv2_backbone import backbone as core
from swinv2_backbone.build import build_backbone
from swinv2_backbone.variants import VARIANTS, variant_name
from swinv2_backbone.windows import Size


class SwinV2(Backbone):
    """A published or own-size SwinV2 that returns ``res2`` ... ``res5``, for any Detectron2 head.

    Detectron2 pads the images of a batch with zeros, after normalisation, to one size.  This
    backbone reads the true sizes back from the zeros, so that no image's features depend on its
    padding or on the other images of the batch.

    Args:
        variant: a key of ``swinv2_backbone.VARIANTS`` or a seed name; or None, for a size of one's
            own.
        embed_dim, depths, num_heads: the size of one's own; only without ``variant``.
        window_size: one number, one per stage, or one (height, width) per stage.  Default: the
            variant's; a size of one's own must give it.
        mask_padding: False treats padding as image, as other backbones do.
        others: see :class:`swinv2_backbone.SwinV2`.

    Raises:
        ValueError: both or neither of a variant and a size are given, or an argument is wrong.
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
        out_features: Sequence[str] = core.FEATURES,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        activation_checkpointing: bool = False,
        in_channels: int = 3,
        kernel: str = "auto",
        mask_padding: bool = True,
    ):
        super().__init__()
        options = dict(
            window_size=window_size,
            pretrained_window_sizes=pretrained_window_sizes,
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
        elif len(given) < len(size) or window_size is None:
            raise ValueError(
                "without a variant, embed_dim, depths, num_heads and window_size are "
                f"needed, got only {given or 'none of them'}"
            )
        else:
            self.swinv2 = core.SwinV2(embed_dim, depths, num_heads=num_heads, **options)
        self.variant = variant
        self.mask_padding = mask_padding

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, C_in, H, W) -> name -> (B, C, ceil(H / stride), ceil(W / stride))."""
        return self.swinv2(images, true_sizes(images) if self.mask_padding else None)

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(channels=self.swinv2.channels[name], stride=self.swinv2.strides[name])
            for name in self.swinv2.out_features
        }

    @property
    def size_divisibility(self) -> int:
        """0: any size will do.  (An FPN on top needs, and asks for, multiples of its stride.)"""
        return 0


def feature_shapes(
    variant: str | None = None,
    embed_dim: int | None = None,
    out_features: Sequence[str] = core.FEATURES,
) -> dict[str, ShapeSpec]:
    """``output_shape()`` of a :class:`SwinV2`, for the heads of a LazyConfig."""
    channels = VARIANTS[variant_name(variant)].embed_dim if embed_dim is None else embed_dim
    return {
        name: ShapeSpec(channels=channels * 2**stage, stride=4 * 2**stage)
        for stage, name in enumerate(core.FEATURES)
        if name in out_features
    }


def true_sizes(images: Tensor) -> list[Size]:
    """The size of each image of a batch (B, C, H, W) without its zero padding.

    Rows at the bottom and columns at the right that are exactly zero in all channels are padding.
    (A normalised pixel never is: no whole number equals the mean of ImageNet.)  An image of
    nothing but zeros counts as whole.
    """
    content = (images != 0).any(dim=1)  # (B, H, W)
    # argmax finds the first of equals: of the flipped axis, so the last row with content.
    rows = content.any(dim=2).flip(1).to(torch.uint8).argmax(dim=1)
    cols = content.any(dim=1).flip(1).to(torch.uint8).argmax(dim=1)
    height, width = images.shape[-2:]
    return [
        (height - bottom, width - right)
        for bottom, right in torch.stack((rows, cols), dim=1).tolist()
    ]


@BACKBONE_REGISTRY.register()
def build_swinv2_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SwinV2:
    """SwinV2 alone, as ``cfg.MODEL.SWINV2`` says.

    By default with the features that a ``SemanticSegmentor``'s head takes, as weights that nobody
    uses would break distributed training; else with all four.
    """
    wanted: Sequence[str] = core.FEATURES
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        taken = cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES
        if taken and set(taken) <= set(core.FEATURES):  # else of a neck between the two
            wanted = taken
    return _build_swinv2(cfg, input_shape, cfg.MODEL.SWINV2.OUT_FEATURES or wanted)


@BACKBONE_REGISTRY.register()
def build_swinv2_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """SwinV2 under an FPN with p2 ... p6."""
    return _build_fpn(cfg, input_shape, lambda bottom_up: LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_retinanet_swinv2_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """SwinV2 under RetinaNet's FPN with p3 ... p7, p6 made from res5."""
    if "res5" not in cfg.MODEL.FPN.IN_FEATURES:
        raise ValueError(
            "RetinaNet's p6 is made from res5: add it to MODEL.FPN.IN_FEATURES "
            f"{list(cfg.MODEL.FPN.IN_FEATURES)}"
        )

    def p6_and_p7(bottom_up: SwinV2) -> LastLevelP6P7:
        return LastLevelP6P7(bottom_up.output_shape()["res5"].channels, cfg.MODEL.FPN.OUT_CHANNELS)

    return _build_fpn(cfg, input_shape, p6_and_p7)


def _build_swinv2(cfg: CfgNode, input_shape: ShapeSpec, out_features: Sequence[str]) -> SwinV2:
    node = cfg.MODEL.SWINV2
    if node.MASK_PADDING and all(float(mean).is_integer() for mean in cfg.MODEL.PIXEL_MEAN):
        raise ValueError(
            f"with MODEL.PIXEL_MEAN {list(cfg.MODEL.PIXEL_MEAN)} a pixel can be exactly 0 and look "
            "like padding: set MODEL.SWINV2.MASK_PADDING False"
        )
    return SwinV2(
        node.VARIANT,
        embed_dim=node.EMBED_DIM,
        depths=node.DEPTHS,
        num_heads=node.NUM_HEADS,
        window_size=node.WINDOW_SIZE,
        pretrained_window_sizes=node.PRETRAINED_WINDOW_SIZES,
        out_features=out_features,
        drop_path_rate=node.DROP_PATH_RATE,
        frozen_stages=node.FROZEN_STAGES,
        activation_checkpointing=node.ACTIVATION_CHECKPOINTING,
        in_channels=input_shape.channels,
        kernel=node.KERNEL,
        mask_padding=node.MASK_PADDING,
    )


def _build_fpn(
    cfg: CfgNode, input_shape: ShapeSpec, top_block: Callable[[SwinV2], nn.Module]
) -> FPN:
    in_features = cfg.MODEL.FPN.IN_FEATURES
    if not in_features or any(name not in core.FEATURES for name in in_features):
        raise ValueError(
            f"MODEL.FPN.IN_FEATURES {list(in_features)} must be some of {', '.join(core.FEATURES)}"
        )
    out_features = cfg.MODEL.SWINV2.OUT_FEATURES or in_features
    # A feature that the FPN leaves unused has weights without gradients, which distributed
    # training does not survive; one that the backbone does not have cannot be used.
    if set(in_features) != set(out_features):
        raise ValueError(
            f"MODEL.FPN.IN_FEATURES {list(in_features)} must be MODEL.SWINV2.OUT_FEATURES "
            f"{list(out_features)} (which follows by itself if it is None)"
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
