"""The number of layers that a runtime computes in 8-bit integers on this computer."""

from __future__ import annotations

import tempfile
from pathlib import Path

from swinv2_backbone.export.formats.openvino import only_core

ONNXRUNTIME = ("MatMulInteger", "MatMulIntegerToFloat", "QGemm", "QLinearMatMul")
OPENVINO = ("FullyConnected", "MatMul")
ERRORS = 3  # onnxruntime's severity: it warns that an optimized file is for this computer


def count_onnxruntime(path: Path) -> int:
    """Count the products of integers in the graph that onnxruntime makes of a file."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        model = onnx.load(options.optimized_model_filepath, load_external_data=False)
    return sum(node.op_type in ONNXRUNTIME for node in model.graph.node)


def count_openvino(path: Path) -> int:
    """Count the products of integers in the graph that OpenVINO makes of a file."""
    core = only_core()
    graph = core.compile_model(core.read_model(path), "CPU").get_runtime_model()
    described = [operator.get_rt_info() for operator in graph.get_ops()]
    return sum(
        info["layerType"].value in OPENVINO and info["runtimePrecision"].value in ("i8", "u8")
        for info in described
    )
