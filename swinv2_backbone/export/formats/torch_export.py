"""Archives of torch.export: a graph of PyTorch's operators."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from swinv2_backbone.export.formats.format import Format, Notes, Options, Run
from swinv2_backbone.export.formats.tracing import trace

NOTES = "notes.json"  # the extra file in the archive


def write_program(
    model: nn.Module, images: Tensor, path: Path, notes: Notes, options: Options
) -> None:
    graph = trace(model, images, options.fixed)
    torch.export.save(graph, path, extra_files={NOTES: json.dumps(dict(notes))})


def read_program(path: Path) -> tuple[Run, dict[str, str]]:
    extra = {NOTES: ""}
    graph = torch.export.load(path, extra_files=extra)
    return graph.module(), json.loads(extra[NOTES])


TORCH_EXPORT = Format(".pt2", lambda: None, write_program, read_program)
