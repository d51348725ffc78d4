"""int8 files: the linear layers of an exported ONNX graph in 8-bit integers, the rest in float."""

from swinv2_backbone.export.int8.file import STORE, Report, export_int8
from swinv2_backbone.export.int8.pictures import Pictures

__all__ = ["STORE", "Pictures", "Report", "export_int8"]
