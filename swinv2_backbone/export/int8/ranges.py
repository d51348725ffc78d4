"""The numbers of 8-bit layers: scales of weights, and ranges of inputs from pictures.

Legend: C_in, C_out channels of a layer; n sampled rows of its input, (rows, C_in).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swinv2_backbone.export.int8.linear import Int8, Linear

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

# Weights have 7 bits: on processors without instructions for int8 products (VNNI), onnxruntime and
# oneDNN add pairs of products in 16 bits, which overflow with 8-bit weights.
WEIGHT_LIMIT = 63
INPUT_LIMIT = 255
BIAS_LIMIT = 2**30
ROWS = 1024  # sampled per layer, of all pictures
LEAST_ROWS = 16  # per picture
CLIPPED = (0.0, 1e-5, 1e-4, 1e-3)  # parts of the sampled inputs below and above the range


class Inputs(NamedTuple):
    """Inputs of a layer: the lowest and highest of all, and sampled rows (n, C_in)."""

    low: float
    high: float
    rows: np.ndarray


def observe(
    model: ModelProto, layers: Sequence[Linear], pictures: Iterable[np.ndarray], count: int
) -> dict[str, Inputs]:
    """Run a float graph on pictures; return the inputs of its linear layers by tensor name.

    Args:
        pictures: batches for the graph.
        count: the number of pictures.
    """
    import onnxruntime

    names = list(dict.fromkeys(layer.input for layer in layers))
    watched = _with_samples(model, names, max(ROWS // count, LEAST_ROWS))
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    outputs = [f"{name}{kind}" for name in names for kind in (LOW, HIGH, SAMPLE)]
    low, high = dict.fromkeys(names, np.inf), dict.fromkeys(names, -np.inf)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    (input,) = session.get_inputs()
    for picture in pictures:
        found = iter(session.run(outputs, {input.name: picture}))
        for name, lowest, highest, sample in zip(names, found, found, found):
            low[name] = min(low[name], float(lowest))
            high[name] = max(high[name], float(highest))
            rows[name].append(sample)
    return {name: Inputs(low[name], high[name], np.concatenate(rows[name])) for name in names}


def choose(layer: Linear, inputs: Inputs) -> Int8:
    """Return the 8-bit numbers of a layer with the smallest error on its sampled inputs."""
    exact = inputs.rows @ layer.weight
    size = max(float(np.linalg.norm(exact)), np.finfo(np.float32).tiny)
    found = []
    for low, high in _ranges(inputs):
        scale, zero = _grid(low, high)
        weight, weight_scale = _rounded_weight(layer, scale)
        stored = np.clip(np.round(inputs.rows / scale) + zero, 0, INPUT_LIMIT)
        output = ((stored - zero) * scale) @ (weight * weight_scale)
        error = float(np.linalg.norm(output - exact)) / size
        found.append(Int8(scale, zero, weight, weight_scale, error))
    return min(found, key=lambda numbers: numbers.error)


LOW, HIGH, SAMPLE = ":low", ":high", ":sample"


def _with_samples(model: ModelProto, names: Sequence[str], rows: int) -> ModelProto:
    """Return a copy of a graph that also outputs the range and sampled rows of tensors.

    The rows are ``rows`` to 2 * ``rows`` of (-1, C_in), at an odd distance from each other, so
    that they are not all of one column of the map.
    """
    from onnx import ModelProto, helper, numpy_helper

    watched = ModelProto()
    watched.CopyFrom(model)
    graph = watched.graph
    for name, value in {"one": [1], "two": [2], "rows": [2 * rows], "zero": [0]}.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value), f":{name}"))
    graph.initializer.append(numpy_helper.from_array(np.array([2**62]), ":end"))
    for name in names:
        graph.node.extend(_sampling(name))
        for kind in (LOW, HIGH, SAMPLE):
            graph.output.append(helper.make_empty_tensor_value_info(f"{name}{kind}"))
    return watched


def _sampling(name: str) -> Iterator[NodeProto]:
    from onnx import helper

    yield helper.make_node("ReduceMin", [name], [f"{name}{LOW}"], keepdims=0)
    yield helper.make_node("ReduceMax", [name], [f"{name}{HIGH}"], keepdims=0)
    yield helper.make_node("Flatten", [name], [f"{name}:2d"], axis=-1)
    yield helper.make_node("Shape", [f"{name}:2d"], [f"{name}:length"], start=0, end=1)
    yield helper.make_node("Div", [f"{name}:length", ":rows"], [f"{name}:half"])
    yield helper.make_node("Mul", [f"{name}:half", ":two"], [f"{name}:even"])
    yield helper.make_node("Add", [f"{name}:even", ":one"], [f"{name}:step"])
    every = [f"{name}:2d", ":zero", ":end", ":zero", f"{name}:step"]
    yield helper.make_node("Slice", every, [f"{name}{SAMPLE}"])


def _ranges(inputs: Inputs) -> Iterator[tuple[float, float]]:
    for part in CLIPPED:
        if part == 0:
            yield inputs.low, inputs.high
        else:
            low, high = np.quantile(inputs.rows, [part, 1 - part])
            yield float(low), float(high)


def _grid(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Return the scale and the integer of 0 for inputs of a range."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / INPUT_LIMIT, float(np.finfo(np.float32).tiny))
    return np.float32(scale), np.uint8(round(-low / scale))


def _rounded_weight(layer: Linear, input_scale: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Return (C_in, C_out) int8 and one scale per output channel."""
    scale = np.abs(layer.weight).max(axis=0) / WEIGHT_LIMIT
    if layer.bias is not None:  # it is stored in 32 bits, in units of both scales
        scale = np.maximum(scale, np.abs(layer.bias) / (input_scale * BIAS_LIMIT))
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.round(layer.weight / scale).astype(np.int8), scale
