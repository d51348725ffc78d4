"""One export from the model to a file that is there only if it gives what the model gives."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from swinv2_backbone.export.check import Difference, Run, compare
from swinv2_backbone.export.formats import FORMATS, Format, Notes


def check_target(path: Path, name: str, overwrite: bool) -> None:
    """Raise for what would stop :func:`export_file` in the end.

    Args:
        path: of the file.
        name: of the format, a key of ``FORMATS``.
        overwrite: whether what is there may be replaced.

    Raises:
        ValueError: the format is unknown, something that it needs is not installed, or the file
            has another suffix.
        FileNotFoundError: there is no such folder.
        FileExistsError: the file is there and ``overwrite`` is not given.
    """
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}; there are: {', '.join(FORMATS)}")
    missing = FORMATS[name].missing()
    if missing:
        raise ValueError(f"the format {name} {missing}")
    if path.suffix != FORMATS[name].suffix:
        raise ValueError(f"{path}: a file of {name} ends in {FORMATS[name].suffix}")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.absolute().parent}")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; give --overwrite to replace it")


def export_file(
    model: nn.Module,
    expected: Run,
    path: Path,
    format: Format,
    images: Sequence[Tensor],
    *,
    notes: Notes,
    show: Callable[[Difference], None] = lambda difference: None,
) -> None:
    """Write a model, run the file, and put it into its place; what is there is replaced.

    Args:
        model: its form to be exported, pixels -> outputs by name.
        expected: what the file must give: the model as users run it.
        path: of the file; ONNX of more than 2 GB has a second file beside it.
        format: of the file.
        images: (B, C_in, H, W) each, to compare at; the second is traced, see check_shapes.
        notes: for the file's metadata.
        show: called with every difference.

    Raises:
        ValueError: the file gives something else than the model; then there is no file.
        RuntimeError: the model cannot be traced.
    """
    folder = path.with_name(f"{path.name}.{os.getpid()}.partial")
    folder.mkdir()
    try:
        format.write(model.eval(), images[1], folder / path.name, notes)
        run, _ = format.read(folder / path.name)
        differences = compare(run, expected, images)
        for difference in differences:
            show(difference)
        wrong = [str(difference) for difference in differences if not difference.is_small]
        if wrong:
            raise ValueError(f"{path} is not written, as it differs from the model: {wrong[0]}")
        # The file itself last, so that weights beside it are there when it is.
        for part in sorted(folder.iterdir(), key=lambda part: part.name == path.name):
            part.replace(path.with_name(part.name))
    finally:
        shutil.rmtree(folder)
