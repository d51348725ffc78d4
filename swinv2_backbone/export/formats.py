"""The formats of exported files: their requirements, writers and readers.

Notes, a dict of strings, are stored in the metadata of the file.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

Notes = Mapping[str, str]
Run = Callable[[Tensor], dict[str, Tensor]]  # (B, C_in, H, W), pixels -> outputs by name

AXES = {0: "batch", 2: "height", 3: "width"}  # the dynamic axes of the input
INPUT = "images"
# The newest operator set that PyTorch writes.
OPSET = 23
ONNX_FILE_LIMIT = 2 * 10**9  # bytes; larger weights are stored in a second file
NOTES = "notes.json"  # the extra file in a torch.export archive


class Format(NamedTuple):
    """A file format of exported models.

    Attributes:
        suffix: the suffix of the file.
        missing: returns a description of missing requirements; None if nothing is missing.
        write: writes (model, images to trace, path, notes).
        read: returns a function that runs a file, and the file's notes.
    """

    suffix: str
    missing: Callable[[], str | None]
    write: Callable[[nn.Module, Tensor, Path, Notes], None]
    read: Callable[[Path], tuple[Run, dict[str, str]]]


def trace(model: nn.Module, images: Tensor) -> ExportedProgram:
    """Trace one graph for every batch size, height and width.

    Args:
        model: pixels -> outputs by name, such as :class:`FromPixels`; in eval mode.
        images: any (B, C_in, H, W).

    Raises:
        RuntimeError: the model cannot be traced, or specializes the graph to a size.
    """
    # By default PyTorch assumes that dynamic axes are longer than 1; maps of small images are not.
    import torch.fx.experimental._config as tracing

    any_length = {axis: torch.export.Dim.DYNAMIC for axis in AXES}
    # PyTorch installs ``patch`` into its config modules at run time.
    with torch.no_grad(), tracing.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        return torch.export.export(model, (images,), dynamic_shapes={INPUT: any_length})


def _write_onnx(model: nn.Module, images: Tensor, path: Path, notes: Notes) -> None:
    import onnx

    graph = trace(model, images)
    program = torch.onnx.export(
        graph,
        dynamo=True,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=output_names(model, images),
        verbose=False,
    )
    assert program is not None  # it is None only without dynamo
    shape = program.model.graph.inputs[0].shape
    assert shape is not None  # every traced input has one
    symbols: dict[Any, str] = {shape[axis]: name for axis, name in AXES.items()}
    program.rename_axes(symbols)
    program.model.metadata_props.update(notes)
    size = sum(t.numel() * t.element_size() for t in graph.state_dict.values())
    program.save(path, external_data=size > ONNX_FILE_LIMIT)
    onnx.checker.check_model(path, full_check=True)


def output_names(model: nn.Module, images: Tensor) -> list[str]:
    """Return the names of a model's outputs."""
    with torch.no_grad():
        return list(model(images))


def _read_onnx(path: Path) -> tuple[Run, dict[str, str]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> dict[str, Tensor]:
        found = session.run(names, {INPUT: images.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, found)}

    return run, session.get_modelmeta().custom_metadata_map


def _write_program(model: nn.Module, images: Tensor, path: Path, notes: Notes) -> None:
    graph = trace(model, images)
    torch.export.save(graph, path, extra_files={NOTES: json.dumps(dict(notes))})


def _read_program(path: Path) -> tuple[Run, dict[str, str]]:
    extra = {NOTES: ""}
    graph = torch.export.load(path, extra_files=extra)
    return graph.module(), json.loads(extra[NOTES])


def _write_compiled(model: nn.Module, images: Tensor, path: Path, notes: Notes) -> None:
    torch._inductor.aoti_compile_and_package(
        trace(model, images),
        package_path=str(path),
        inductor_configs={
            "aot_inductor.metadata": dict(notes),
            # Otherwise the file always uses as many threads as this process has now.
            "cpp.dynamic_threads": True,
        },
    )


def _read_compiled(path: Path) -> tuple[Run, dict[str, str]]:
    model = torch._inductor.aoti_load_package(str(path))
    return model, model.loader.get_metadata()


def _missing_modules(*modules: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        absent = [name for name in modules if importlib.util.find_spec(name) is None]
        if not absent:
            return None
        return f"needs {', '.join(absent)}: pip install 'swinv2_backbone[export]'"

    return missing


def _missing_compiler() -> str | None:
    candidates = (os.environ.get("CXX"), "g++", "clang++")
    if any(name and shutil.which(name) for name in candidates):
        return None
    return "needs a C++ compiler: install g++, set CXX, or use torch-export"


FORMATS = {
    "onnx": Format(
        ".onnx",
        _missing_modules("onnx", "onnxscript", "onnxruntime"),
        _write_onnx,
        _read_onnx,
    ),
    "torch-export": Format(".pt2", lambda: None, _write_program, _read_program),
    "aoti": Format(".pt2", _missing_compiler, _write_compiled, _read_compiled),
}
