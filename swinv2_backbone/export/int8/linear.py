"""The linear layers of an ONNX graph, and their replacement by 8-bit layers.

An 8-bit layer is written in ONNX's own operators: QuantizeLinear and DequantizeLinear before the
matrix product.  Runtimes replace the group by a product of integers; one that cannot computes the
same in float.  (onnxruntime replaces a Gemm only if its bias is an integer, too, and no MatMul that
is followed by an Add.)

Legend: C_in, C_out input and output channels of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

QUANTIZED = "int8:"  # prefix of the names of added tensors and nodes


class Linear(NamedTuple):
    """A linear layer: a Gemm or MatMul with constant weight and bias.

    Attributes:
        name: the name for messages, such as "stages.0.blocks.0.qkv".
        input, output: names of its tensors.
        weight: (C_in, C_out).
        bias: (C_out,), or None.
    """

    name: str
    input: str
    output: str
    weight: np.ndarray
    bias: np.ndarray | None


class Int8(NamedTuple):
    """A layer's numbers in 8 bits.

    Attributes:
        scale, zero: input x is stored as round(x / scale) + zero, 0 to 255.
        weight: (C_in, C_out) int8.
        weight_scale: (C_out,) float32; the bias is stored as round(bias / (weight_scale * scale)).
        error: |output - exact output| / |exact output| on sampled inputs, Euclidean norms.
    """

    scale: np.float32
    zero: np.uint8
    weight: np.ndarray
    weight_scale: np.ndarray
    error: float


def linear_layers(model: ModelProto) -> list[Linear]:
    """Return the linear layers of a graph in their order.

    Products of two activations, as in attention, and convolutions are none.
    """
    constants = _constants(model)
    products = (node for node in model.graph.node if node.op_type in ("Gemm", "MatMul"))
    found = (_layer(node, constants) for node in products)
    return [layer for layer in found if layer is not None]


def take_in_biases(model: ModelProto) -> None:
    """Make the sum of a Gemm and a constant row a Gemm with a bias, in place."""
    graph, constants = model.graph, _constants(model)
    users: dict[str, list[NodeProto | None]] = {output.name: [None] for output in graph.output}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for node in list(graph.node):
        if node.op_type != "Gemm" or len(node.input) > 2 or len(users[node.output[0]]) != 1:
            continue
        (added,) = users[node.output[0]]
        if added is None or added.op_type != "Add":
            continue
        (bias,) = set(added.input) - {node.output[0]}
        if bias in constants and len(constants[bias].dims) == 1:
            node.input.append(bias)
            node.output[0] = added.output[0]
            graph.node.remove(added)


def _layer(node: NodeProto, constants: Mapping[str, TensorProto]) -> Linear | None:
    """Return the layer of a Gemm or MatMul; None if its weight or bias is not constant."""
    from onnx import numpy_helper

    names, given = node.input[1:], _attributes(node)
    plain = all(given.get(key, value) == value for key, value in PLAIN.items())
    if not plain or any(name not in constants for name in names):
        return None
    weight, *bias = (numpy_helper.to_array(constants[name]) for name in names)
    weight = weight.T if given.get("transB") else weight
    if weight.ndim != 2 or weight.dtype != np.float32:
        return None
    biases = np.broadcast_to(bias[0], weight.shape[1:]) if bias else None
    return Linear(_name(node), node.input[0], node.output[0], weight, biases)


PLAIN = {"transA": 0, "alpha": 1.0, "beta": 1.0}  # Gemm: x @ weight + bias


def quantize_layers(model: ModelProto, layers: Mapping[str, tuple[Linear, Int8]]) -> None:
    """Replace layers, by the name of their output, in place."""
    graph = model.graph
    nodes: list[NodeProto] = []
    for node in graph.node:
        found = layers.get(node.output[0]) if node.output else None
        nodes += [node] if found is None else _int8_nodes(model, *found)
    used = {name for node in nodes for name in node.input} | {out.name for out in graph.output}
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)


def _int8_nodes(model: ModelProto, layer: Linear, numbers: Int8) -> list[NodeProto]:
    """Return the nodes of an 8-bit layer; add its constants to the graph."""
    from onnx import helper, numpy_helper

    prefix = QUANTIZED + layer.output

    def constant(name: str, value: Any) -> str:
        tensor = numpy_helper.from_array(np.asarray(value), f"{prefix}:{name}")
        model.graph.initializer.append(tensor)
        return tensor.name

    def node(kind: str, name: str, inputs: list[str], **attributes: int) -> NodeProto:
        output = f"{prefix}:{name}"
        return helper.make_node(kind, inputs, [output], output, **attributes)

    x = [constant("scale", numbers.scale), constant("zero", numbers.zero)]
    rounded = node("QuantizeLinear", "input", [layer.input, *x])
    restored = node("DequantizeLinear", "restored", [*rounded.output, *x])
    zeros = np.zeros(len(numbers.weight_scale), np.int8)
    weight = [
        constant("weight", numbers.weight),
        constant("weight scale", numbers.weight_scale),
        constant("weight zero", zeros),
    ]
    weights = node("DequantizeLinear", "weights", weight, axis=1)
    if layer.bias is None:
        product = node("MatMul", "product", [*restored.output, *weights.output])
        product.output[0] = layer.output
        return [rounded, restored, weights, product]
    scale = numbers.weight_scale * numbers.scale
    bias = [
        constant("bias", np.round(layer.bias / scale).astype(np.int32)),
        constant("bias scale", scale),
        constant("bias zero", zeros.astype(np.int32)),
    ]
    biases = node("DequantizeLinear", "biases", bias, axis=0)
    product = node("Gemm", "product", [*restored.output, *weights.output, *biases.output])
    product.output[0] = layer.output
    return [rounded, restored, weights, biases, product]


def _constants(model: ModelProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _attributes(node: NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {given.name: helper.get_attribute_value(given) for given in node.attribute}


def _name(node: NodeProto) -> str:
    """Return the name of a layer's module: its weight, or its node in PyTorch's older tracer."""
    weight = node.input[1]
    name = weight if weight.endswith(".weight") else node.name.replace("/", ".")
    return name.strip(".").removesuffix(".weight").removesuffix(f".{node.op_type}")
