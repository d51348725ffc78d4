"""Export a model to a file that runs without this package, and compare the two.

tools/export_model.py --model swinv2_tiny_window8_256 --what classifier --format onnx \\
    --output tiny.onnx
tools/export_model.py --config-file output/config.yaml --weights output/model_final.pth \\
    --what detector --format onnx --output detector.onnx
tools/export_model.py --config-file configs/upernet_swinv2_tiny_ade20k.py --weights upernet.pth \\
    --what semantic --format torch-export --output upernet.pt2

The file takes pixels from 0 to 255, or bands as they are stored, of any height, width and batch
size (a detector's: one image), or with --size of one.  It is kept only if its outputs equal the
model's, at three sizes or at its own, and in each runtime of --check-with.
See docs/EXPORT.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swinv2_backbone.cli.arguments import (
    add_config_changes,
    add_images,
    add_imports,
    config_changes,
    new_parser,
    pixel_numbers,
)
from swinv2_backbone.cli.calibration import calibration_pictures, check_int8, write_int8
from swinv2_backbone.cli.check_with import add_check_with, check_in_runtimes, check_runtimes
from swinv2_backbone.cli.errors import errors_as_messages
from swinv2_backbone.cli.export_shapes import (
    HALF_LIMIT,
    add_shape_options,
    check_shape_options,
    fixed_shape,
    shape_notes,
    write_options,
)

if TYPE_CHECKING:
    from torch import Tensor

    from swinv2_backbone.export.check import Difference
    from swinv2_backbone.export.exportable import Exportable
    from swinv2_backbone.export.formats import Format

OF_A_NAME = ("backbone", "classifier")
OF_A_CONFIG = ("backbone", "backbone+fpn", "semantic", "detector")
FORMATS = (
    "onnx",
    "openvino",
    "coreml",
    "litert",
    "torch-export",
    "aoti",
)  # as in export.formats, which needs torch (a test compares)


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    with errors_as_messages(RuntimeError), warnings.catch_warnings():
        # PyTorch's exporters and Detectron2 warn about their own internals.
        warnings.simplefilter("ignore")
        run(args)


def run(args: argparse.Namespace) -> None:
    if args.config_file:
        config_changes(args.config_file, args.opts, args.imports)
    from swinv2_backbone.export.check import LIMIT
    from swinv2_backbone.export.file import export_file, passed

    check(args)
    found, weights = from_name(args) if args.model else from_config(args)
    format = found.format_of(args.format)
    notes = notes_of(args, found, weights)
    images = list(images_to_check(args, found))
    seen: list[Difference] = []
    limit = HALF_LIMIT if args.half else LIMIT

    def show(difference: Difference) -> None:
        seen.append(difference)
        print(f"checked     {difference}", flush=True)

    def write(path: Path, format: Format) -> None:
        export_file(
            found.model,
            found.expected,
            path,
            format,
            images,
            notes=notes,
            options=write_options(args),
            show=show,
            align=found.align,
            limit=limit,
            check=check_in_runtimes(args, found, images, limit) if path == args.output else passed,
        )

    if args.int8:
        pictures = calibration_pictures(args, found, fixed_shape(args, found))
        write_int8(args, pictures, notes, lambda path: write(path, found.format_of("onnx")))
    else:
        write(args.output, format)
    if not any(0 not in one.shape for one in seen):
        print(
            "NOTE        nothing was found in these images: give --picture FILE with objects in it"
        )
    for key, value in notes.items():
        print(f"{key:<11} {value}")
    print(f"written     {args.output} ({stored(args.output) / 1e6:.1f} MB)")


def check(args: argparse.Namespace) -> None:
    """Raise ValueError or OSError for arguments that cannot work, before any work is done."""
    from swinv2_backbone.export.file import check_target

    allowed = OF_A_NAME if args.model else OF_A_CONFIG
    if args.what not in allowed:
        source = "--model" if args.model else "--config-file"
        raise ValueError(f"--what {args.what}: with {source} there are {', '.join(allowed)}")
    if args.model and args.opts:
        raise ValueError(f"{' '.join(args.opts)}: config keys go with --config-file alone")
    if args.model and args.imports:
        raise ValueError(f"--import {args.imports[0]} goes with --config-file alone")
    given = [args.pixel_mean, args.pixel_std, args.stem]
    if args.config_file and (args.image_format != "RGB" or any(given)):
        raise ValueError(
            "--image-format, --pixel-mean, --pixel-std and --stem go with --model: a config has "
            "INPUT.FORMAT, MODEL.PIXEL_MEAN, MODEL.PIXEL_STD and MODEL.SWINV2.STEM (in a "
            "LazyConfig image_format, model.pixel_mean, model.pixel_std and train.stem)"
        )
    if args.config_file and args.square_small_maps:
        raise ValueError(
            "--square-small-maps goes with --model: set MODEL.SWINV2.SMALL_MAP_RULE square "
            "(small_map_rule of the backbone in a LazyConfig)"
        )
    if args.model:
        pixel_numbers(args)
    if args.picture and not args.picture.is_file():
        raise FileNotFoundError(f"--picture: no file {str(args.picture)!r}")
    if args.config_file and not Path(args.config_file).is_file():
        raise FileNotFoundError(f"--config-file: no file {args.config_file!r}")
    if args.int8:
        check_int8(args)
    check_shape_options(args)
    check_target(args.output, args.format, args.overwrite, fixed=bool(args.size))
    check_runtimes(args, fixed=bool(args.size), batch=args.batch)


def from_name(args: argparse.Namespace) -> tuple[Exportable, Path]:
    """Build a published variant; return it with the file of its weights."""
    from swinv2_backbone.build import PUBLISHED, build_backbone, build_classifier
    from swinv2_backbone.checkpoints.fetch import fetch
    from swinv2_backbone.export.exportable import exportable_model
    from swinv2_backbone.variants import variant_name

    weights = args.weights or PUBLISHED
    source = f"swinv2://{variant_name(args.model)}" if weights == PUBLISHED else weights
    mean, std = pixel_numbers(args)
    model = (build_backbone if args.what == "backbone" else build_classifier)(
        args.model,
        weights=source,
        in_channels=len(mean),
        stem=args.stem,
        small_map_rule="square" if args.square_small_maps else "per_axis",
    )
    return exportable_model(model, args.image_format, mean, std), fetch(source)


def from_config(args: argparse.Namespace) -> tuple[Exportable, Path]:
    """Build a part of a Detectron2 model; return it with the file of its weights."""
    from swinv2_backbone.d2.export.model import exportable_part, load_model

    model, image_format, weights = load_model(
        args.config_file, args.weights, args.opts, args.imports
    )
    return exportable_part(model, args.what, image_format), weights


def images_to_check(args: argparse.Namespace, found: Exportable) -> Iterator[Tensor]:
    """Yield images (B, C_in, H, W): random pixels, or a picture resized.

    They have three sizes, or the one of the file.
    """
    from swinv2_backbone.export.check import check_shapes

    shapes = check_shapes(found.backbone.window_sizes, found.backbone.in_channels)
    if only := fixed_shape(args, found):
        shapes = [only]
    for batch, *shape in shapes:
        batch = 1 if found.one_image else batch
        if args.picture:
            one = picture(args.picture, found.image_format, shape[0], shape[1:])
            yield one.expand(batch, *shape)
        else:
            yield random_images((batch, *shape), found)


def random_images(shape: Sequence[int], found: Exportable) -> Tensor:
    """Draw pixels from 0 to 255, or bands within two standard deviations of their mean."""
    import torch

    from swinv2_backbone.export.check import random_pixels

    pixels = random_pixels(shape)
    if found.image_format in ("RGB", "BGR"):
        return pixels
    mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (found.mean, found.std))
    return mean + std * (4 * pixels / 255 - 2)


def picture(path: Path, image_format: str, bands: int, size: Sequence[int]) -> Tensor:
    """Read a picture as (1, bands, H, W) float32."""
    import torch
    import torch.nn.functional as F

    from swinv2_backbone.images.bands import read_pixels

    pixels = torch.from_numpy(read_pixels(path, image_format, bands).copy()).permute(2, 0, 1)[None]
    return F.interpolate(pixels.float(), tuple(size), mode="bilinear", antialias=True)


def notes_of(args: argparse.Namespace, found: Exportable, weights: Path) -> dict[str, str]:
    """Return the notes that are written into the file."""
    import torch

    import swinv2_backbone

    batch = "1" if found.one_image else "batch"
    pixels = "0 to 255" if found.image_format in ("RGB", "BGR") else "as they are stored"
    channels, backbone = found.backbone.in_channels, found.backbone
    return {
        "what": args.what,
        "source": " ".join([args.model or args.config_file, *args.opts]),
        "weights": str(args.weights or weights),
        "sha256": digest(weights),
        "input": f"images, float32 ({batch}, {channels}, height, width), {found.image_format}, "
        f"{pixels}; the file normalizes them itself",
        "mean": json.dumps([float(f"{number:.7g}") for number in found.mean]),
        "std": json.dumps([float(f"{number:.7g}") for number in found.std]),
        **{name: words for name, words in found.outputs.items()},
        "windows": json.dumps(backbone.window_sizes),
        "pretrained windows": json.dumps(backbone.pretrained_window_sizes),
        "small maps": backbone.small_map_rule,
        **shape_notes(args),
        **resize_notes(args),
        "made by": f"swinv2_backbone {swinv2_backbone.__version__}, PyTorch {torch.__version__}",
    }


def resize_notes(args: argparse.Namespace) -> dict[str, str]:
    """Return how a config resizes its test images: a file finds less at other sizes."""
    if args.model:
        return {}
    from swinv2_backbone.d2.export.resizing import resize_note

    note = resize_note(args.config_file, args.opts, args.imports)
    return {"resize": f"{note}, before the file, as in testing"}


def stored(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files of a folder in the order of their names."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def parser() -> argparse.ArgumentParser:
    found = new_parser(__doc__)
    add = found.add_argument
    source = found.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", metavar="NAME", help="a published variant or seed name")
    source.add_argument("--config-file", metavar="FILE", help=".yaml, or .py of a LazyConfig")
    add("--weights", metavar="FILE", help="default: the published weights, or those of the config")
    add_images(found)
    add("--format", required=True, choices=FORMATS)
    add("--what", required=True, choices=dict.fromkeys([*OF_A_NAME, *OF_A_CONFIG]))
    add("--output", required=True, type=Path, metavar="FILE")
    add("--picture", type=Path, metavar="FILE", help="compare on it, not on random pixels")
    text = "Microsoft's windows on small maps (docs/WINDOWS.md)"
    add("--square-small-maps", action="store_true", help=text)
    text = "linear layers in 8 bits, calibrated on these pictures (docs/EXPORT.md)"
    add("--int8", type=Path, metavar="FOLDER", help=text)
    add_shape_options(found)
    add_check_with(found)
    add("--overwrite", action="store_true")
    add_imports(found)
    add_config_changes(found)
    return found
