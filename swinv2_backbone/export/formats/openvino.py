"""OpenVINO's files: a graph (.xml) and its weights (.bin) beside it.

The ONNX file of the same model is converted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swinv2_backbone.export.formats.format import (
    INPUT,
    Format,
    Notes,
    Options,
    Run,
    missing_modules,
)
from swinv2_backbone.export.formats.onnx import write_onnx

NOTES = "swinv2_backbone"  # the group of the notes in the file's rt_info
Write = Callable[[nn.Module, Tensor, Path, Notes, Options], None]


@lru_cache
def only_core() -> Any:
    """Return the one ``openvino.Core`` of this process.

    A Core replaces the stack on which this thread handles signals. Several of them may leave one
    behind that is freed, and the next Ctrl-C is then a segmentation fault.
    """
    import openvino

    return openvino.Core()


def write_openvino(
    model: nn.Module,
    images: Tensor,
    path: Path,
    notes: Notes,
    options: Options,
    write: Write = write_onnx,
) -> None:
    """Write ``path`` and its weights; ``write`` writes the ONNX file."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source = Path(folder) / "model.onnx"
        write(model, images, source, {}, options._replace(half=False))
        convert_onnx(source, path, notes, options.half)


def convert_onnx(source: Path, path: Path, notes: Notes, half: bool = False) -> None:
    """Convert an ONNX file; with ``half``, round its weights to float16."""
    import onnx
    import openvino

    graph = only_core().read_model(source)
    # An output that is also used inside the graph would have several names.
    named = onnx.load(source, load_external_data=False).graph.output
    for output, described in zip(graph.outputs, named, strict=True):
        output.set_names({described.name})
    for key, text in notes.items():
        graph.set_rt_info(text, [NOTES, key])
    # OpenVINO rounds weights to float16 by default.
    openvino.save_model(graph, path, compress_to_fp16=half)


def read_openvino(path: Path) -> tuple[Run, dict[str, str]]:
    graph = only_core().read_model(path)
    # By default it computes in bfloat16 or float16 on processors that have it.
    compiled = only_core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    # Compiling may add names to an output; the order stays.
    names = [output.get_any_name() for output in graph.outputs]

    def run(images: Tensor) -> dict[str, Tensor]:
        found = compiled({INPUT: images.numpy()})
        return {name: torch.from_numpy(found[i].copy()) for i, name in enumerate(names)}

    notes = graph.get_rt_info([NOTES]).value if graph.has_rt_info([NOTES]) else {}
    return run, dict(notes)


OPENVINO = Format(
    ".xml",
    missing_modules("export", "onnx", "onnxscript", "openvino"),
    write_openvino,
    read_openvino,
    second=".bin",
)
