"""Mask2Former's masked-attention transformer as a meta-architecture of this package."""

from swinv2_backbone.d2.modeling.mask_transformer.model import MaskTransformer

__all__ = ["MaskTransformer"]
