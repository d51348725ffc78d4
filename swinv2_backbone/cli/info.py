"""Print versions, devices and the kernels that would run, to paste into a bug report.

swinv2 info
swinv2 info --json    the same for programs

It needs neither Detectron2 nor a GPU. Paths in your home folder begin with ~.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import swinv2_backbone
from swinv2_backbone.cli.arguments import new_parser
from swinv2_backbone.cli.errors import errors_as_messages

LIBRARIES = (
    *("torchvision", "numpy", "triton", "pillow", "opencv-python", "pycocotools", "fvcore"),
    *("iopath", "omegaconf", "hydra-core", "yacs", "timm", "transformers", "safetensors"),
    *("huggingface_hub", "imagecodecs", "tifffile", "pillow-heif", "scipy", "shapely"),
    *("onnx", "onnxruntime", "onnxscript", "openvino", "coremltools", "litert-torch", "ray"),
    *("wandb", "mlflow"),
)
VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SWINV2_", "TRITON_INTERPRET")
HEAD_DIM, WINDOW = 32, (16, 16)  # of the published models, as an example of a block
Report = dict[str, dict[str, str]]


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    with errors_as_messages():
        found = report()
    print(json.dumps(found, indent=1) if args.json else as_text(found))


def report() -> Report:
    """Return all sections: title -> name -> value."""
    sections = {
        "swinv2_backbone": _ours,
        "machine": _machine,
        "PyTorch": _torch,
        "kernels": _kernels,
        "Detectron2": _detectron2,
        "libraries": _libraries,
        "environment": _environment,
    }
    found: Report = {}
    for title, section in sections.items():
        try:
            found[title] = {name: without_home(value) for name, value in section().items()}
        except Exception as error:  # a broken library is what the report is for
            found[title] = {"error": without_home(f"{type(error).__name__}: {error}")}
    return found


def without_home(text: str) -> str:
    """Return a text in which the user's home folder is ~."""
    home = os.path.expanduser("~")
    return text.replace(home, "~") if len(home) > 1 else text


def _ours() -> dict[str, str]:
    return {
        "version": swinv2_backbone.__version__,
        "folder": str(Path(swinv2_backbone.__file__).parent),
    }


def _machine() -> dict[str, str]:
    return {
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "executable": sys.executable,
        "platform": platform.platform(),
        "processor": f"{_processor()}, {os.cpu_count()} CPUs",
    }


def _processor() -> str:
    """Return the name of the processor; Linux and macOS tell more than ``platform`` does."""
    cpus = Path("/proc/cpuinfo")
    if cpus.is_file():
        for line in cpus.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _torch() -> dict[str, str]:
    import torch

    found = {
        "version": torch.__version__,
        "CUDA": f"built for {torch.version.cuda}" if torch.version.cuda else "built without",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }
    if torch.version.hip:
        found["ROCm"] = f"built for {torch.version.hip}"
    gpus = torch.cuda.device_count()
    found["GPUs"] = str(gpus) if gpus else "none that PyTorch can use"
    for index in range(gpus):
        gpu = torch.cuda.get_device_properties(index)
        memory = f"{gpu.total_memory / 2**30:.0f} GiB"
        found[f"cuda:{index}"] = f"{gpu.name}, {memory}, compute {gpu.major}.{gpu.minor}"
    if torch.backends.mps.is_available():
        found["mps"] = "available"
    return found


def _kernels() -> dict[str, str]:
    """Return the kernel of a block of the published models on each device."""
    import torch

    from swinv2_backbone.kernels import choose
    from swinv2_backbone.kernels.cpu.native import state

    asked = choose.asked_for("auto")
    devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    found = {"chosen by": f"{choose.VARIABLE}={asked}" if asked != "auto" else "auto"}
    for name in devices:
        device = torch.device(name)
        try:
            kernel = choose.available(asked, device, torch.float32, WINDOW, HEAD_DIM).value
        except ValueError as error:
            kernel = f"none: {error}"
        if kernel == choose.Kernel.TILES.value:
            kernel = f"{kernel} (native kernels: {state()})"
        why = choose.why_not_triton(device, torch.float32, WINDOW, HEAD_DIM)
        found[name] = f"{kernel} (triton {why})" if why and device.type == "cuda" else kernel
    return found


def _detectron2() -> dict[str, str]:
    """Describe Detectron2 by its files and metadata; importing it takes seconds."""
    from swinv2_backbone.cli.detectron2_sdist import VERSION

    spec = find_spec("detectron2")
    if spec is None or not spec.submodule_search_locations:
        return {"version": "not installed (swinv2 install-detectron2)"}
    folder = Path(next(iter(spec.submodule_search_locations)))
    found = {"version": _version("detectron2") or "unknown", "folder": str(folder)}
    compiled = [file.name for file in folder.glob("_C.*") if file.suffix in (".so", ".pyd")]
    found["compiled part"] = compiled[0] if compiled else "none (pure Python)"
    found["source"] = _source(found["version"] == VERSION)
    return found


def _source(ours: bool) -> str:
    """Return where Detectron2 was installed from, as pip recorded it."""
    if ours:
        return "sdist of 0.6 from PyPI, brought up to date by swinv2 install-detectron2"
    try:
        record = distribution("detectron2").read_text("direct_url.json")
    except PackageNotFoundError:
        return "not installed by pip"
    if not record:
        return "a package index"
    origin: dict[str, Any] = json.loads(record)
    commit = origin.get("vcs_info", {}).get("commit_id")
    file = origin["url"].rpartition("/")[2]
    return f"commit {commit}" if commit else file


def _libraries() -> dict[str, str]:
    return {name: _version(name) or "-" for name in LIBRARIES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}


def as_text(found: Report) -> str:
    """Return the report as lines; libraries that are not installed share one."""
    lines = []
    for title, section in found.items():
        absent = [name for name, value in section.items() if value == "-"]
        present = {name: value for name, value in section.items() if value != "-"}
        if absent:
            present["not installed"] = ", ".join(absent)
        lines += [title, *(f"  {name:<16} {value}" for name, value in present.items())]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    found = new_parser(__doc__)
    found.add_argument("--json", action="store_true")
    return found
