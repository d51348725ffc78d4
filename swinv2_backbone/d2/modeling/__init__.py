"""Models for Detectron2's registries: the SwinV2 backbones, UPerNet's head, MaskTransformer."""

from swinv2_backbone.d2.modeling.backbone import (
    D2SwinV2,
    build_retinanet_swinv2_fpn_backbone,
    build_swinv2_backbone,
    build_swinv2_fpn_backbone,
    feature_shapes,
)
from swinv2_backbone.d2.modeling.build import build_model, with_true_sizes
from swinv2_backbone.d2.modeling.mask_transformer import MaskTransformer
from swinv2_backbone.d2.modeling.roi_align import with_native_roi_align
from swinv2_backbone.d2.modeling.upernet import UPerNetHead

__all__ = [
    "D2SwinV2",
    "MaskTransformer",
    "UPerNetHead",
    "build_model",
    "build_retinanet_swinv2_fpn_backbone",
    "build_swinv2_backbone",
    "build_swinv2_fpn_backbone",
    "feature_shapes",
    "with_native_roi_align",
    "with_true_sizes",
]
