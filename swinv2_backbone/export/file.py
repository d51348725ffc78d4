"""Exporting a model to a file, which is kept only if its outputs match the model's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from swinv2_backbone.checkpoints.durable import unfinished
from swinv2_backbone.export.check import LIMIT, Align, Difference, Run, as_found, compare
from swinv2_backbone.export.formats import EVERY_SHAPE, FORMATS, Format, Notes, Options


def passed(path: Path) -> None:
    """Accept any file: the default of :func:`export_file`."""


def check_target(path: Path, name: str, overwrite: bool, fixed: bool = False) -> None:
    """Check early that :func:`export_file` can write a file.

    Args:
        path: the file.
        name: the format, a key of ``FORMATS``.
        overwrite: allow replacing an existing file.
        fixed: the file is for one shape.

    Raises:
        ValueError: the format is unknown, its requirements are not installed, it needs a fixed
            shape, or the file has another suffix.
        FileNotFoundError: the folder does not exist.
        FileExistsError: the file exists and ``overwrite`` is False.
    """
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}; there are: {', '.join(FORMATS)}")
    if FORMATS[name].needs_size and not fixed:
        raise ValueError(f"--format {name} holds one image size: give --size HxW")
    missing = FORMATS[name].missing()
    if missing:
        raise ValueError(f"--format {name} {missing}")
    if path.suffix != FORMATS[name].suffix:
        raise ValueError(f"{path}: a file of {name} ends in {FORMATS[name].suffix}")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.absolute().parent}")
    second = FORMATS[name].second
    for part in [path, *([path.with_suffix(second)] if second else [])]:
        if part.exists() and not overwrite:
            raise FileExistsError(f"{part} exists; give --overwrite to replace it")


def export_file(
    model: nn.Module,
    expected: Run,
    path: Path,
    format: Format,
    images: Sequence[Tensor],
    *,
    notes: Notes,
    options: Options = EVERY_SHAPE,
    show: Callable[[Difference], None] = lambda difference: None,
    align: Align = as_found,
    limit: float = LIMIT,
    check: Callable[[Path], None] = passed,
) -> None:
    """Write a model, compare the file with it, and move the file to its path.

    Args:
        model: the exportable form, pixels -> outputs by name.
        expected: the original model, for comparison.
        path: the file (or folder, of coreml), replaced if it exists; ONNX above 2 GB and OpenVINO
            have a second file beside it.
        format: the format of the file.
        images: batches (B, C_in, H, W) to compare at; the second, or the only one, is traced.
        notes: the file's metadata.
        options: fixed shapes, operator set, precision.
        show: called with every difference.
        align: see :func:`compare`.
        limit: the largest difference, as in :class:`Difference`.
        check: called with the written file, which is kept unless it raises an error.

    Raises:
        ValueError: the file's outputs differ from the model's; then no file is written.
        RuntimeError: the model cannot be traced.
    """
    with unfinished(path) as part:
        format.write(model.eval(), images[:2][-1], part, notes, options)
        run, _ = format.read(part)
        differences = compare(run, expected, images, align)
        for difference in differences:
            show(difference)
        wrong = [str(one) for one in differences if not one.relative <= limit]
        if wrong:
            raise ValueError(f"{path} was not written: it differs from the model: {wrong[0]}")
        check(part)
