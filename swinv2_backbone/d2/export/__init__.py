"""Exporting Detectron2 models: backbones, FPNs, segmentors and R-CNN detectors."""

from swinv2_backbone.d2.export.model import PARTS, exportable_part, load_model

__all__ = ["PARTS", "exportable_part", "load_model"]
