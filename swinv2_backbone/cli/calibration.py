"""``export_model --int8 FOLDER``: find, check and resize the pictures, and write the file."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from swinv2_backbone.export.exportable import Exportable
    from swinv2_backbone.export.int8 import Pictures

Export = Callable[[Path], None]  # writes the float ONNX file
INT8_FORMATS = ("onnx", "openvino")  # as in export.int8, which needs torch (a test compares)
LEAST = 10  # pictures; the same


def check_int8(args: argparse.Namespace) -> None:
    """Raise ValueError or OSError if ``--int8`` cannot work, before any work is done."""
    if args.format not in INT8_FORMATS:
        raise ValueError(f"--int8 goes with --format {' or '.join(INT8_FORMATS)}")
    if not args.int8.is_dir():
        raise FileNotFoundError(f"--int8: no folder {str(args.int8)!r}")


def calibration_pictures(
    args: argparse.Namespace, found: Exportable, shape: tuple[int, ...] | None = None
) -> Pictures:
    """Return the pictures of the folder, resized as the model's test images are.

    Args:
        shape: the only (B, C_in, H, W) that the file takes; None: it takes all.

    Raises:
        ValueError, OSError: there are too few pictures, or one cannot be read.
    """
    from swinv2_backbone.export.int8 import Pictures

    files = _files(args.int8, found)
    prepare = _of_a_config(args, found) if args.config_file else _of_a_name(args, found)

    def read(path: Path) -> Tensor:
        from swinv2_backbone.export.fitting import fit

        image = prepare(path)
        if shape is not None:
            image = fit(image, (shape[2], shape[3]), found.mean).image
        return image.expand(shape[0] if shape else 1, *image.shape).contiguous()

    return Pictures(files, read)


def write_int8(
    args: argparse.Namespace, pictures: Pictures, notes: Mapping[str, str], export: Export
) -> None:
    """Write the float file with ``export``, then the int8 file; print how they compare."""
    from swinv2_backbone.export.int8 import export_int8

    with tempfile.TemporaryDirectory(
        dir=args.output.absolute().parent, suffix=".partial"
    ) as folder:
        source = Path(folder) / "float.onnx"
        export(source)
        report = export_int8(source, args.output, args.format, pictures, notes)
    for title, text in report.lines():
        print(f"{title:<11} {text}")


def _files(folder: Path, found: Exportable) -> list[Path]:
    from swinv2_backbone.images.bands import BANDS, has_bands, header_of
    from swinv2_backbone.images.kinds import described, is_image

    bands = len(found.mean) if found.image_format == BANDS else None
    usable = is_image if bands is None else has_bands
    there = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    files = [path for path in there if usable(path)]
    if len(files) < LEAST:
        others = described([path for path in there if not usable(path)])
        raise ValueError(
            f"--int8 {folder}: {len(files)} pictures are too few to calibrate and compare: give at "
            f"least {LEAST}, of the kind that the model will see"
            + "".join(f"\nskipped {line}" for line in others)
        )
    for path in files:
        if refused := header_of(path, bands).refused:
            raise ValueError(f"--int8: {path}: {refused}")
    return files


def _of_a_config(args: argparse.Namespace, found: Exportable) -> Callable[[Path], Tensor]:
    import torch

    from swinv2_backbone.d2.export.resizing import resize_of_tests
    from swinv2_backbone.images.bands import read_pixels

    resize = resize_of_tests(args.config_file, args.opts, args.imports)

    def prepare(path: Path) -> Tensor:
        pixels: np.ndarray = read_pixels(path, found.image_format, len(found.mean))
        return torch.from_numpy(resize(pixels).transpose(2, 0, 1).copy())

    return prepare


def _of_a_name(args: argparse.Namespace, found: Exportable) -> Callable[[Path], Tensor]:
    from torchvision import transforms

    from swinv2_backbone.cli.classification import Pixels, preparation
    from swinv2_backbone.variants import VARIANTS, variant_name

    pixels = Pixels(found.image_format, found.mean, found.std)
    steps = preparation(VARIANTS[variant_name(args.model)].image_size, pixels).transforms
    resize = transforms.Compose(steps[:-1])  # the file normalizes

    def prepare(path: Path) -> Tensor:
        image: Tensor = resize(pixels.read(path)).float()
        return image.flip(0) if found.image_format == "BGR" else image

    return prepare
