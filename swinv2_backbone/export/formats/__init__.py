"""The formats of exported files: their requirements, writers and readers."""

from swinv2_backbone.export.formats.aoti import AOTI
from swinv2_backbone.export.formats.coreml import COREML
from swinv2_backbone.export.formats.format import (
    AXES,
    EVERY_SHAPE,
    INPUT,
    Format,
    Notes,
    Options,
    Run,
    output_names,
)
from swinv2_backbone.export.formats.litert import LITERT
from swinv2_backbone.export.formats.onnx import ONNX, OPSET
from swinv2_backbone.export.formats.openvino import OPENVINO
from swinv2_backbone.export.formats.torch_export import TORCH_EXPORT
from swinv2_backbone.export.formats.tracing import trace

FORMATS = {
    "onnx": ONNX,
    "openvino": OPENVINO,
    "coreml": COREML,
    "litert": LITERT,
    "torch-export": TORCH_EXPORT,
    "aoti": AOTI,
}

__all__ = [
    "AXES",
    "EVERY_SHAPE",
    "FORMATS",
    "INPUT",
    "OPSET",
    "Format",
    "Notes",
    "Options",
    "Run",
    "output_names",
    "trace",
]
