"""The runtimes that can check an exported file, and the files that each can run."""

from __future__ import annotations

import importlib.util
import sys
from typing import NamedTuple


class Runtime(NamedTuple):
    """A runtime of exported files.

    Attributes:
        formats: the formats that it reads.
        modules: what must be installed.
        install: the arguments of ``pip install``.
        fixed: it runs files of a fixed shape alone.
        one_image: it has no batch axis.
        detectors: it runs whole detectors.
    """

    formats: tuple[str, ...]
    modules: tuple[str, ...]
    install: str
    fixed: bool = False
    one_image: bool = False
    detectors: bool = False


RUNTIMES = {
    "onnxruntime": Runtime(("onnx",), ("onnxruntime",), "onnxruntime", detectors=True),
    "openvino": Runtime(("onnx", "openvino"), ("openvino",), "openvino", detectors=True),
    "opencv": Runtime(("onnx",), ("cv2",), "'opencv-python>=5'", fixed=True),
    "tract": Runtime(("onnx",), ("tract",), "tract", fixed=True),
    "ncnn": Runtime(("onnx",), ("ncnn", "pnnx"), "ncnn pnnx", fixed=True, one_image=True),
    "litert": Runtime(("litert",), ("ai_edge_litert",), "ai-edge-litert", fixed=True),
    "coreml": Runtime(("coreml",), ("coremltools",), "coremltools", fixed=True),
}


def check_runtime(
    name: str, format: str, *, fixed: bool, batch: int | None = None, detector: bool = False
) -> None:
    """Check early that a runtime can run a file.

    Args:
        name: the runtime.
        format: the format of the file.
        fixed: the file is for one shape.
        batch: the number of images, if it is fixed.
        detector: the file holds a whole detector.

    Raises:
        ValueError: the runtime is unknown, not installed, or cannot run such a file.
    """
    if name not in RUNTIMES:
        raise ValueError(f"--check-with {name}: there are {', '.join(RUNTIMES)}")
    runtime = RUNTIMES[name]
    reason = None
    if format not in runtime.formats:
        reason = f"it does not read --format {format}, only {' and '.join(runtime.formats)}"
    elif detector and not runtime.detectors:
        reason = "it cannot run a detector, whose number of boxes depends on the image"
    elif runtime.fixed and not fixed:
        reason = "it runs files of a fixed shape alone: give --size HxW"
    elif runtime.one_image and batch not in (None, 1):
        reason = "it has no batch axis: give --batch 1"
    elif name == "coreml" and sys.platform != "darwin":
        reason = "CoreML runs on macOS alone"
    else:
        absent = [one for one in runtime.modules if importlib.util.find_spec(one) is None]
        if absent:
            reason = f"it needs {', '.join(absent)}: pip install {runtime.install}"
    if reason:
        raise ValueError(f"--check-with {name}: {reason}")
