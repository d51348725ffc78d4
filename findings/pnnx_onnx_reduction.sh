#!/usr/bin/env bash
# pnnx 20261020 drops the axis of an ONNX reduction over one axis when it converts the file for ncnn.
# The layer that it writes (Reduction with an empty list of axes) returns its input as it is, of the
# wrong shape, and a later product or sum with it broadcasts: a normalization over the channels gives
# wrong numbers, without a warning.  Reductions over two axes are right.
#
# Seen with ncnn 1.0.20261020, pnnx 20261020, onnx 1.23.2, numpy 2.4.6 on Python 3.11, for (2, 3, 4):
#   ReduceSum over (2,): (2, 3, 4), wrong
#   ReduceMean over (1,): (2, 3, 4), wrong
#   ReduceL2 over (2,): (2, 3, 4), wrong
#   ReduceSum over (1, 2): (2, 1, 1), right
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    ncnn==1.0.20261020 pnnx==20261020 onnx==1.23.2 numpy==2.4.6 \
    ml_dtypes==0.6.0 protobuf==7.36.2 typing_extensions==4.16.0
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.util
import subprocess
import sys
from pathlib import Path

import ncnn
import numpy as np
import onnx
from onnx import TensorProto, helper

folder = Path(sys.argv[1])
pnnx = Path(importlib.util.find_spec("pnnx").origin).with_name("pnnx")  # importing it needs PyTorch
x = np.arange(1, 25, dtype=np.float32).reshape(2, 3, 4)
NUMPY = {
    "ReduceSum": lambda axes: x.sum(axes, keepdims=True),
    "ReduceMean": lambda axes: x.mean(axes, keepdims=True),
    "ReduceL2": lambda axes: np.sqrt((x * x).sum(axes, keepdims=True)),
}


def in_ncnn(operator, axes):
    """Return what ncnn computes for a file of this one operator."""
    node = helper.make_node(operator, ["x", "axes"], ["y"], keepdims=1)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, NUMPY[operator](axes).shape)]
    constants = [helper.make_tensor("axes", TensorProto.INT64, [len(axes)], axes)]
    graph = helper.make_graph([node], "reduction", inputs, outputs, constants)
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "model.onnx")
    subprocess.run([pnnx, "model.onnx", "fp16=0"], cwd=folder, check=True, capture_output=True)
    net = ncnn.Net()
    net.load_param(str(folder / "model.ncnn.param"))
    net.load_model(str(folder / "model.ncnn.bin"))
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(x).clone())
    return np.array(extractor.extract("out0")[1])


same = True
cases = [("ReduceSum", (2,)), ("ReduceMean", (1,)), ("ReduceL2", (2,)), ("ReduceSum", (1, 2))]
for operator, axes in cases:
    found, expected = in_ncnn(operator, axes), NUMPY[operator](axes)
    right = found.shape == expected.shape and np.allclose(found, expected)
    print(f"{operator} over {axes}: {found.shape}, {'right' if right else 'wrong'}")
    same &= right == (len(axes) > 1)
sys.exit(not same)
PYTHON
