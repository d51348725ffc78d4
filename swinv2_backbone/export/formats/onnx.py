"""ONNX files, written by PyTorch's exporter and run by onnxruntime."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swinv2_backbone.export.formats.format import (
    AXES,
    INPUT,
    Format,
    Notes,
    Options,
    Run,
    missing_modules,
    output_names,
)
from swinv2_backbone.export.formats.tracing import trace

# The newest operator set that PyTorch writes.
OPSET = 23
FILE_LIMIT = 2 * 10**9  # bytes; larger weights are stored in a second file


def write_onnx(
    model: nn.Module, images: Tensor, path: Path, notes: Notes, options: Options
) -> None:
    import onnx

    graph = trace(model, images, options.fixed)
    program = torch.onnx.export(
        graph,
        dynamo=True,
        opset_version=options.opset or OPSET,
        input_names=[INPUT],
        output_names=output_names(model, images),
        verbose=False,
    )
    assert program is not None  # it is None only without dynamo
    if not options.fixed:
        shape = program.model.graph.inputs[0].shape
        assert shape is not None  # every traced input has one
        symbols: dict[Any, str] = {shape[axis]: name for axis, name in AXES.items()}
        program.rename_axes(symbols)
    program.model.metadata_props.update(notes)
    size = sum(t.numel() * t.element_size() for t in graph.state_dict.values())
    program.save(path, external_data=size > FILE_LIMIT)
    if options.half:
        _halve(path)
    onnx.checker.check_model(path, full_check=True)


def _halve(path: Path) -> None:
    """Round the weights of a file to float16; it computes in float16, its images stay float32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numbers below 1e-7 are raised to it
        half = convert_float_to_float16(onnx.load(path), keep_io_types=True)
    OnnxModel(half).topological_sort()  # the conversions of the images are last
    onnx.save(half, path)


def read_onnx(path: Path) -> tuple[Run, dict[str, str]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> dict[str, Tensor]:
        found = session.run(names, {INPUT: images.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, found)}

    return run, session.get_modelmeta().custom_metadata_map


ONNX = Format(
    ".onnx", missing_modules("export", "onnx", "onnxscript", "onnxruntime"), write_onnx, read_onnx
)
