"""The interface of a file format, and what all formats share."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

Notes = Mapping[str, str]  # stored in the metadata of a file
Run = Callable[[Tensor], dict[str, Tensor]]  # (B, C_in, H, W), pixels -> outputs by name

INPUT = "images"
AXES = {0: "batch", 2: "height", 3: "width"}  # the dynamic axes of the input


class Options(NamedTuple):
    """How a file is written.

    Attributes:
        fixed: the file is for the shape of the traced images alone, not for every shape.
        opset: the ONNX operator set; None: the newest that PyTorch writes.
        half: weights in half precision.
    """

    fixed: bool = False
    opset: int | None = None
    half: bool = False


EVERY_SHAPE = Options()


class Format(NamedTuple):
    """A file format of exported models.

    Attributes:
        suffix: the suffix of the file.
        missing: returns a description of missing requirements; None if nothing is missing.
        write: writes (model, images to trace, path, notes, options).
        read: returns a function that runs a file, and the file's notes.
        needs_size: the format holds fixed shapes alone.
        second: the suffix of a second file beside it; None if there is none.
    """

    suffix: str
    missing: Callable[[], str | None]
    write: Callable[[nn.Module, Tensor, Path, Notes, Options], None]
    read: Callable[[Path], tuple[Run, dict[str, str]]]
    needs_size: bool = False
    second: str | None = None


def output_names(model: nn.Module, images: Tensor) -> list[str]:
    """Return the names of a model's outputs."""
    with torch.no_grad():
        return list(model(images))


def missing_modules(extra: str, *modules: str) -> Callable[[], str | None]:
    """Return a function that names the modules that are not installed, and the extra with them."""

    def missing() -> str | None:
        absent = [name for name in modules if importlib.util.find_spec(name) is None]
        if not absent:
            return None
        return f"needs {', '.join(absent)}: pip install 'swinv2_backbone[{extra}]'"

    return missing
