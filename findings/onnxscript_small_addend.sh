#!/usr/bin/env bash
# onnxscript 0.7.2's optimizer, which torch.onnx.export(dynamo=True) calls by default, takes x + 1e-8
# (and smaller constants) for x + 0 and removes the addition.  An epsilon that keeps a norm above
# zero, as in x / sqrt(sum(x * x) + 1e-12), is lost from the file: rows of zeros, such as padding, give
# NaN in every runtime, without a warning.  From 1e-7 on, the addition stays; Max(x, 1e-12) stays too.
#
# Seen with onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.32.0, numpy 2.4.6 on Python 3.11:
#   eps 1e-12: Mul ReduceSum Sqrt Div, a row of zeros becomes nan (as built: 0.0)
#   eps 1e-08: Mul ReduceSum Sqrt Div, a row of zeros becomes nan (as built: 0.0)
#   eps 1e-07: Mul ReduceSum Add Sqrt Div, a row of zeros becomes 0.0 (as built: 0.0)
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnxruntime
import onnxscript
from onnx import TensorProto, helper


def unit_rows(eps):
    """A model of x / sqrt(sum(x * x) + eps)."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "axes"], ["sum"], keepdims=1),
        helper.make_node("Add", ["sum", "eps"], ["positive"]),
        helper.make_node("Sqrt", ["positive"], ["norm"]),
        helper.make_node("Div", ["x", "norm"], ["y"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
        helper.make_tensor("eps", TensorProto.FLOAT, [], [eps]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy")
    graph = helper.make_graph(nodes, "unit_rows", [x], [y], constants)
    opset = helper.make_opsetid("", 18)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def zeros_become(model):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": np.array([[3, 0, 4], [0, 0, 0]], np.float32)})[0][1, 0]


same = True
for eps, removed in ((1e-12, True), (1e-8, True), (1e-7, False)):
    built = unit_rows(eps)
    optimized = onnxscript.optimizer.optimize(built)
    operators = [node.op_type for node in optimized.graph.node]
    value, before = zeros_become(optimized), zeros_become(built)
    words = f"a row of zeros becomes {value} (as built: {before})"
    print(f"eps {eps:.0e}: {' '.join(operators)}, {words}")
    same &= ("Add" not in operators) == removed and bool(np.isnan(value)) == removed and before == 0
sys.exit(not same)
PYTHON
