"""Exporting models to files that run without this package: ONNX, torch.export, AOTInductor."""

from swinv2_backbone.export.exportable import Exportable, exportable_model
from swinv2_backbone.export.file import export_file
from swinv2_backbone.export.formats import FORMATS

__all__ = ["FORMATS", "Exportable", "export_file", "exportable_model"]
