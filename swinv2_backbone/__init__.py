"""Swin Transformer V2 as a multi-scale backbone; ``swinv2_backbone.d2`` is for Detectron2."""

from swinv2_backbone.backbone import SwinV2, build_backbone
from swinv2_backbone.variants import VARIANTS, Variant

__version__ = "0.1.0"

__all__ = ["VARIANTS", "SwinV2", "Variant", "build_backbone"]
