"""Quantizing the linear layers of an ONNX file, except those that cost accuracy."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from swinv2_backbone.export.formats.onnx import read_onnx
from swinv2_backbone.export.int8.agreement import compare_files
from swinv2_backbone.export.int8.linear import (
    Int8,
    Linear,
    linear_layers,
    quantize_layers,
    take_in_biases,
)
from swinv2_backbone.export.int8.pictures import Pictures
from swinv2_backbone.export.int8.ranges import choose, observe

if TYPE_CHECKING:
    from onnx import ModelProto

LAYER_LIMIT = 0.05  # largest error of a layer in 8 bits, see Int8
LIMIT = 0.1  # largest error of an output, see agreement.errors
REMOVED = 0.1  # part of the layers that each further attempt leaves in float
LEAST_QUANTIZED = 0.25  # of the weights of the linear layers

Layers = dict[str, tuple[Linear, Int8]]  # by output


class Quantized(NamedTuple):
    """What was quantized.

    Attributes:
        layers: the 8-bit layers.
        kept: the layers left in float, with the error that they would have in 8 bits.
    """

    layers: Layers
    kept: Layers


def quantize_file(
    source: Path, target: Path, calibration: Pictures, compared: Pictures
) -> Quantized:
    """Write an ONNX file with its linear layers in 8 bits.

    A layer stays in float if its own error is large.  While the outputs differ too much from those
    of the float file, further layers stay in float, those with the largest errors first.

    Raises:
        ValueError: the limits leave too little to quantize.
    """
    import onnx

    model = folded(source)
    layers = linear_layers(model)
    inputs = observe(model, layers, (images.numpy() for images in calibration), len(calibration))
    numbers = [(layer, choose(layer, inputs[layer.input])) for layer in layers]
    numbers.sort(key=lambda pair: pair[1].error)
    kept = [pair for pair in numbers if not pair[1].error <= LAYER_LIMIT]
    numbers = numbers[: len(numbers) - len(kept)]
    expected = read_onnx(source)[0]
    while True:
        _check_enough(numbers, kept)
        written = onnx.ModelProto()
        written.CopyFrom(model)
        quantize_layers(written, _by_output(numbers))
        onnx.save(written, target)
        if compare_files(read_onnx(target)[0], expected, compared).largest <= LIMIT:
            onnx.checker.check_model(target, full_check=True)
            return Quantized(_by_output(numbers), _by_output(kept))
        left = len(numbers) - max(1, round(REMOVED * len(layers)))
        kept, numbers = numbers[left:] + kept, numbers[:left]


def folded(source: Path) -> ModelProto:
    """Return a graph with its constants computed, such as the biases of queries, keys and values.

    onnxruntime's basic optimizations keep to ONNX's operators.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        model = onnx.load(options.optimized_model_filepath)
    take_in_biases(model)
    domains = {node.domain for node in model.graph.node}
    imports = [each for each in model.opset_import if each.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    return model


def _by_output(pairs: list[tuple[Linear, Int8]]) -> Layers:
    return {layer.output: (layer, numbers) for layer, numbers in pairs}


def _check_enough(numbers: list[tuple[Linear, Int8]], kept: list[tuple[Linear, Int8]]) -> None:
    weights, left = (sum(layer.weight.size for layer, _ in pairs) for pairs in (numbers, kept))
    if weights < LEAST_QUANTIZED * (weights + left):
        worst = ", ".join(f"{layer.name} ({number.error:.3f})" for layer, number in kept[-3:])
        raise ValueError(
            f"int8 is too inaccurate for this model: {len(kept)} of {len(kept) + len(numbers)} "
            f"linear layers would have to stay in float; the largest errors are of {worst}"
        )
