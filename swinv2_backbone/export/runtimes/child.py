"""Run an exported file in another runtime, in a process of its own.

python child.py RUNTIME FILE INPUTS.npz OUTPUTS.npz

reads batches of images (B, C_in, H, W) from INPUTS.npz and writes their outputs, named "number
name", and "seconds", the shortest of five runs of each batch on one thread.  It needs NumPy and the
runtime alone, so that it runs in the environment of any runtime.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

INPUT = "images"
REPEATS = 5
Run = Callable[[np.ndarray], dict[str, np.ndarray]]


def onnxruntime(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {INPUT: images})))


def openvino(path: Path) -> Run:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    # An output that is also used inside the graph has several names.
    names = [name for output in compiled.outputs for name in output.get_names()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        found = compiled({INPUT: images})
        return {name: found[name].copy() for name in names}

    return run


def opencv(path: Path) -> Run:
    import cv2

    cv2.setNumThreads(1)
    net = cv2.dnn.readNetFromONNX(str(path))
    names = list(net.getUnconnectedOutLayersNames())

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        net.setInput(images, INPUT)
        return dict(zip(names, net.forward(names)))

    return run


def tract(path: Path) -> Run:
    import tract

    graph = tract.onnx().load(str(path))
    names = [graph.output_name(number) for number in range(graph.output_count())]
    model = graph.into_model().into_runnable()
    return lambda images: {
        name: value.to_numpy() for name, value in zip(names, model.run([images]))
    }


def ncnn(path: Path) -> Run:
    """Convert the ONNX file by pnnx, which writes beside the file and numbers the outputs.

    pnnx names them out0, out1, ... in the order of the file; ncnn lists them in another order.
    """
    import ncnn

    package = importlib.util.find_spec("pnnx")  # to import it imports PyTorch
    assert package is not None and package.origin is not None
    program = Path(package.origin).with_name("pnnx")
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.onnx"
        copy.write_bytes(path.read_bytes())
        subprocess.run([program, copy, "fp16=0"], check=True, cwd=folder, stdout=2)
        if net.load_param(str(copy.with_suffix(".ncnn.param"))):
            raise ValueError("ncnn cannot load the layers that pnnx wrote")
        if net.load_model(str(copy.with_suffix(".ncnn.bin"))):
            raise ValueError("ncnn cannot load the weights that pnnx wrote")
    outputs = sorted(net.output_names(), key=lambda name: int(name.removeprefix("out")))

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with net.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(images[0]).clone())
            found = [extractor.extract(name) for name in outputs]
        if any(error for error, _ in found):
            raise ValueError("ncnn did not compute an output")
        return {name: np.array(value)[None] for name, (_, value) in zip(outputs, found)}

    return run


def litert(path: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(model_path=str(path), num_threads=1).get_signature_runner()
    return lambda images: dict(model(**{INPUT: images}))


def coreml(path: Path) -> Run:
    import coremltools

    model = coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit.CPU_ONLY)
    return lambda images: dict(model.predict({INPUT: images}))


RUNTIMES = {
    function.__name__: function
    for function in (onnxruntime, openvino, opencv, tract, ncnn, litert, coreml)
}


def main(name: str, file: str, inputs: str, outputs: str) -> None:
    run = RUNTIMES[name](Path(file))
    results: dict[str, np.ndarray] = {}
    seconds = []
    with np.load(inputs) as batches:
        for number, images in batches.items():
            times = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                found = run(images)
                times.append(time.perf_counter() - start)
            seconds.append(min(times))
            results |= {f"{number} {output}": value for output, value in found.items()}
    results["seconds"] = np.array(seconds)
    np.savez(outputs, **dict[str, Any](results))


if __name__ == "__main__":
    main(*sys.argv[1:])
