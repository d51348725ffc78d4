"""Export a model, run the file in runtimes, and compare it with the model.

measure.py MODEL RESULTS.json RUNTIME ...

runs in the environment of the runtimes.  run.py calls it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from runtimes.models import MODELS, Model  # noqa: E402
from swinv2_backbone.export.check import Difference, Run, compare, random_pixels  # noqa: E402
from swinv2_backbone.export.exportable import Exportable  # noqa: E402
from swinv2_backbone.export.formats import FORMATS, Options  # noqa: E402
from swinv2_backbone.export.runtimes import check_in, check_runtime  # noqa: E402
from swinv2_backbone.export.runtimes.child import REPEATS  # noqa: E402

ROUNDS = 3  # pairs of the model and the file, of which the median ratio counts
# Name -> (format, packages whose versions are stated, runs in a process of its own).
RUNTIMES = {
    "onnxruntime": ("onnx", ("onnxruntime",), True),
    "OpenVINO": ("onnx", ("openvino",), True),
    "OpenCV": ("onnx", ("opencv-python",), True),
    "tract": ("onnx", ("tract",), True),
    "ncnn": ("onnx", ("ncnn", "pnnx"), True),
    "LiteRT": ("litert", ("ai-edge-litert", "litert-torch"), True),
    "CoreML": ("coreml", ("coremltools",), False),
    "torch-export": ("torch-export", ("torch",), False),
    "aoti": ("aoti", ("torch",), False),
}
NOT_RUN = ("CoreML",)  # its operators are evaluated by PyTorch, whose time says nothing


def main(name: str, output: str, *runtimes: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model = MODELS[name]
    exportable = model.build()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for runtime in runtimes:
            try:
                results[runtime] = measure(runtime, exportable, model, Path(folder))
            except Exception as error:  # any error of a library is a result
                results[runtime] = {"reason": (str(error) or repr(error)).splitlines()[0][:300]}
            packages = RUNTIMES[runtime][1]
            results[runtime]["versions"] = {one: version(one) for one in packages}
            print(name, runtime, results[runtime], flush=True)
    Path(output).write_text(json.dumps(results), encoding="utf-8")


def measure(runtime: str, exportable: Exportable, model: Model, folder: Path) -> dict[str, Any]:
    """Return the difference and the ratio of times of a file in a runtime."""
    format, _, apart = RUNTIMES[runtime]
    exportable.format_of(format)
    images = random_pixels(model.shape)
    if apart:
        check_runtime(runtime.lower(), format, fixed=True, batch=len(images))
    path = folder / f"model{FORMATS[format].suffix}"
    if not path.exists():
        FORMATS[format].write(exportable.model.eval(), images, path, {}, Options(fixed=True))
    if apart:
        reports = [
            check_in(runtime.lower(), path, exportable.expected, [images]) for _ in range(ROUNDS)
        ]
        differences = [difference for one in reports for difference in one.differences]
        return _result(differences, [one.ratio for one in reports])
    run, _ = FORMATS[format].read(path)
    path.unlink() if path.is_file() else None  # torch-export and aoti have the same suffix
    differences = compare(run, exportable.expected, [images])
    ratios = [
        _seconds(run, images) / _seconds(exportable.expected, images)
        for _ in range(ROUNDS)
        if runtime not in NOT_RUN
    ]
    return _result(differences, ratios)


def _result(differences: list[Difference], ratios: list[float]) -> dict[str, Any]:
    found = {"difference": float(f"{max(one.relative for one in differences):.1e}")}
    return found | ({"time": round(median(ratios), 2)} if ratios else {})


@torch.no_grad()
def _seconds(run: Run, images: Tensor) -> float:
    """Return the shortest time of some runs."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run(images)
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main(*sys.argv[1:])
