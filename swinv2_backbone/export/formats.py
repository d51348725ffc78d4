"""The formats of a file: what each needs, how it is written, and how it is read to be run.

Notes, a dict of strings, are in the file's own metadata, where whoever has nothing but the file
finds them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

Notes = Mapping[str, str]
Run = Callable[[Tensor], dict[str, Tensor]]  # (B, C_in, H, W), pixels -> outputs by name

AXES = {0: "batch", 2: "height", 3: "width"}  # of the input, of any length
INPUT = "images"
# The newest set of operators that PyTorch writes; onnxruntime and others read older and newer ones.
OPSET = 23
ONNX_FILE_LIMIT = 2 * 10**9  # bytes of a protobuf; weights beyond lie in a file beside it
NOTES = "notes.json"  # in a torch.export archive


class Format(NamedTuple):
    """How a model becomes a file.

    Attributes:
        suffix: of the file.
        missing: says what has to be installed first; None if nothing.
        write: (model, images to trace it with, file, notes).
        read: file -> a function that runs it, and its notes.
    """

    suffix: str
    missing: Callable[[], str | None]
    write: Callable[[nn.Module, Tensor, Path, Notes], None]
    read: Callable[[Path], tuple[Run, dict[str, str]]]


def trace(model: nn.Module, images: Tensor) -> ExportedProgram:
    """One graph for every batch size, height and width.

    Args:
        model: pixels -> outputs by name, such as :class:`FromPixels`; in eval mode.
        images: (B, C_in, H, W), any.

    Raises:
        RuntimeError: something in the model binds the graph to sizes, or cannot be traced.
    """
    # By default PyTorch binds graphs to axes longer than 1, and a small image's maps are not.
    import torch.fx.experimental._config as tracing

    any_length = {axis: torch.export.Dim.DYNAMIC for axis in AXES}
    with torch.no_grad(), tracing.patch(backed_size_oblivious=True):
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
    symbols = program.model.graph.inputs[0].shape
    program.rename_axes({symbols[axis]: name for axis, name in AXES.items()})
    program.model.metadata_props.update(notes)
    size = sum(t.numel() * t.element_size() for t in graph.state_dict.values())
    program.save(path, external_data=size > ONNX_FILE_LIMIT)
    onnx.checker.check_model(path, full_check=True)


def output_names(model: nn.Module, images: Tensor) -> list[str]:
    """The names of a model's outputs."""
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
            # Else the file would use as many threads as this process has now, wherever it runs.
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
    return "compiles, and finds no C++ compiler: install g++ or set CXX, or take torch-export"


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
