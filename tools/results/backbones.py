"""Backbones of four kinds for one head, of either size.

Detectron2's ResNet is an R50 with batch norms that are trained, as from random weights; the small
one is narrower.  Swin V1 is torchvision's; it has the width, depths and heads of our SwinV2, and
the norms of its authors' detectors.
"""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer

from results.sizes import size_of

NAMES = ("res2", "res3", "res4", "res5")


class SwinV1(Backbone):
    """torchvision's Swin V1 as a backbone, with a norm after every stage."""

    def __init__(self, embed_dim: int, depths: list[int], num_heads: list[int], window: int):
        super().__init__()
        swin = SwinTransformer(
            patch_size=[4, 4],
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            window_size=[window, window],
            stochastic_depth_prob=0.0,
        )
        self.parts = swin.features  # patch embedding, then stages with mergings between them
        widths = [embed_dim * 2**stage for stage in range(4)]
        self.norms = nn.ModuleList([nn.LayerNorm(width) for width in widths])
        self._out_features = list(NAMES)
        self._out_feature_channels = dict(zip(NAMES, widths))
        self._out_feature_strides = dict(zip(NAMES, (4, 8, 16, 32)))

    @property
    def size_divisibility(self) -> int:
        return 32

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps, found = images, {}
        for number, part in enumerate(self.parts):
            maps = part(maps)
            if number % 2:  # a stage; channels are last
                stage = number // 2
                found[NAMES[stage]] = self.norms[stage](maps).permute(0, 3, 1, 2)
        return found


@BACKBONE_REGISTRY.register()
def build_results_swin_v1_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SwinV1:
    node = cfg.MODEL.SWINV2
    return SwinV1(node.EMBED_DIM, list(node.DEPTHS), list(node.NUM_HEADS), window=7)


@BACKBONE_REGISTRY.register()
def build_results_swin_v1_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    return FPN(
        bottom_up=build_results_swin_v1_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def use_swinv2(cfg: CfgNode, window: int) -> None:
    cfg.MODEL.SWINV2.WINDOW_SIZE = window


def use_swin_v1(cfg: CfgNode) -> None:
    _build(cfg, "results_swin_v1")


def use_resnet(cfg: CfgNode) -> None:
    _build(cfg, "resnet")
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    node = cfg.MODEL.RESNETS
    node.DEPTH, node.NORM, node.OUT_FEATURES = 50, "BN", list(NAMES)
    width = size_of(cfg).resnet_width
    node.STEM_OUT_CHANNELS, node.WIDTH_PER_GROUP, node.RES2_OUT_CHANNELS = width, width, 4 * width


def _build(cfg: CfgNode, kind: str) -> None:
    """Select a backbone, under an FPN if the config's own is."""
    fpn = "_fpn" if "_fpn_" in cfg.MODEL.BACKBONE.NAME else ""
    cfg.MODEL.BACKBONE.NAME = f"build_{kind}{fpn}_backbone"
