"""LiteRT (TensorFlow Lite) files for one shape, written by litert-torch."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from swinv2_backbone.export.fixed import fix_shape
from swinv2_backbone.export.formats.format import (
    INPUT,
    Format,
    Notes,
    Options,
    Run,
    missing_modules,
)

NOTES = "notes.json"  # in a zip archive behind the model, as TensorFlow Lite stores metadata files


def write_litert(
    model: nn.Module, images: Tensor, path: Path, notes: Notes, options: Options
) -> None:
    import litert_torch

    fixed = fix_shape(model, images)
    litert_torch.convert(fixed, sample_kwargs={INPUT: images}).export(str(path))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(NOTES, json.dumps(dict(notes)))


def read_litert(path: Path) -> tuple[Run, dict[str, str]]:
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(model_path=str(path)).get_signature_runner()
    names = list(model.get_output_details())
    shape = tuple(model.get_input_details()[INPUT]["shape"].tolist())

    def run(images: Tensor) -> dict[str, Tensor]:
        if tuple(images.shape) != shape:  # LiteRT would resize its tensors, and answer anything
            raise ValueError(f"the file takes images of shape {shape}, not {tuple(images.shape)}")
        found = model(**{INPUT: images.numpy()})
        return {name: torch.from_numpy(found[name]) for name in names}

    with zipfile.ZipFile(path) as archive:
        return run, json.loads(archive.read(NOTES))


LITERT = Format(
    ".tflite",
    missing_modules("litert", "litert_torch", "ai_edge_litert"),
    write_litert,
    read_litert,
    needs_size=True,
)
