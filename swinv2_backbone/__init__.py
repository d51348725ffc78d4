"""Swin Transformer V2 as a multi-scale backbone; ``swinv2_backbone.d2`` is for Detectron2."""

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.build import build_backbone, build_classifier, model_for
from swinv2_backbone.checkpoints import (
    Checkpoint,
    LoadReport,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from swinv2_backbone.classifier import SwinV2Classifier
from swinv2_backbone.variants import VARIANTS, Variant

__version__ = "0.1.0"

__all__ = [
    "VARIANTS",
    "Checkpoint",
    "LoadReport",
    "SwinV2",
    "SwinV2Classifier",
    "Variant",
    "build_backbone",
    "build_classifier",
    "load_checkpoint",
    "model_for",
    "read_checkpoint",
    "save_checkpoint",
]
