"""Libraries that AOTInductor compiles for this kind of processor."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from swinv2_backbone.export.formats.format import Format, Notes, Options, Run
from swinv2_backbone.export.formats.tracing import trace


def write_compiled(
    model: nn.Module, images: Tensor, path: Path, notes: Notes, options: Options
) -> None:
    torch._inductor.aoti_compile_and_package(
        trace(model, images, options.fixed),
        package_path=str(path),
        inductor_configs={
            "aot_inductor.metadata": dict(notes),
            # Otherwise the file always uses as many threads as this process has now.
            "cpp.dynamic_threads": True,
        },
    )


def read_compiled(path: Path) -> tuple[Run, dict[str, str]]:
    model = torch._inductor.aoti_load_package(str(path))
    return model, model.loader.get_metadata()


def missing_compiler() -> str | None:
    candidates = (os.environ.get("CXX"), "g++", "clang++")
    if any(name and shutil.which(name) for name in candidates):
        return None
    return "needs a C++ compiler: install g++, set CXX, or use torch-export"


AOTI = Format(".pt2", missing_compiler, write_compiled, read_compiled)
