#!/usr/bin/env python
"""Export a model to a file that runs without this package, and compare the two.

tools/export_model.py --model swinv2_tiny_window8_256 --what classifier --format onnx \\
    --output tiny.onnx
tools/export_model.py --config-file output/config.yaml --weights output/model_final.pth \\
    --what detector --format onnx --output detector.onnx
tools/export_model.py --config-file configs/upernet_swinv2_tiny_ade20k.py --weights upernet.pth \\
    --what semantic --format torch-export --output upernet.pt2

The file takes pixels from 0 to 255, of any height, width and batch size (a detector's: one image).
It is there only if it gives what the model gives at three sizes.  See docs/EXPORT.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from swinv2_backbone import __version__, build_backbone, build_classifier
from swinv2_backbone.build import PUBLISHED
from swinv2_backbone.checkpoints.fetch import fetch
from swinv2_backbone.export.check import Difference, check_shapes, random_pixels
from swinv2_backbone.export.exportable import Exportable, exportable
from swinv2_backbone.export.file import check_target, export_file
from swinv2_backbone.export.formats import FORMATS
from swinv2_backbone.variants import variant_name

OF_A_NAME = {"backbone": build_backbone, "classifier": build_classifier}
OF_A_CONFIG = ("backbone", "backbone+fpn", "semantic", "detector")


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    check(args)
    found, weights = from_name(args) if args.model else from_config(args)
    format = found.format_of(args.format)
    notes = notes_of(args, found, weights)
    images = list(images_to_check(args, found))
    seen: list[Difference] = []

    def show(difference: Difference) -> None:
        seen.append(difference)
        print(f"checked     {difference}", flush=True)

    export_file(found.model, found.expected, args.output, format, images, notes=notes, show=show)
    if not any(0 not in one.shape for one in seen):
        print(
            "NOTE        nothing was found in these images: give --picture FILE with objects in it"
        )
    for key, value in notes.items():
        print(f"{key:<11} {value}")
    print(f"written     {args.output} ({args.output.stat().st_size / 1e6:.1f} MB)")


def check(args: argparse.Namespace) -> None:
    """Raise ValueError or OSError for what cannot work, before any work."""
    allowed = tuple(OF_A_NAME) if args.model else OF_A_CONFIG
    if args.what not in allowed:
        source = "--model" if args.model else "--config-file"
        raise ValueError(f"--what {args.what}: with {source} there are {', '.join(allowed)}")
    if args.model and args.opts:
        raise ValueError(f"{' '.join(args.opts)}: config keys go with --config-file alone")
    if args.picture and not args.picture.is_file():
        raise FileNotFoundError(f"--picture: no file {str(args.picture)!r}")
    if args.config_file and not Path(args.config_file).is_file():
        raise FileNotFoundError(f"--config-file: no file {args.config_file!r}")
    check_target(args.output, args.format, args.overwrite)


def from_name(args: argparse.Namespace) -> tuple[Exportable, Path]:
    """A published variant, and the file of its weights."""
    weights = args.weights or PUBLISHED
    source = f"swinv2://{variant_name(args.model)}" if weights == PUBLISHED else weights
    return exportable(OF_A_NAME[args.what](args.model, weights=source)), fetch(source)


def from_config(args: argparse.Namespace) -> tuple[Exportable, Path]:
    """A part of a Detectron2 model, and the file of its weights."""
    from swinv2_backbone.d2.export.model import exportable_part, load_model

    model, image_format, weights = load_model(args.config_file, args.weights, args.opts)
    return exportable_part(model, args.what, image_format), weights


def images_to_check(args: argparse.Namespace, found: Exportable) -> Iterator[Tensor]:
    """(B, C_in, H, W) three times: random pixels, or a picture at three sizes."""
    shapes = check_shapes(found.backbone.window_sizes, found.backbone.in_channels)
    for batch, *shape in shapes:
        batch = 1 if found.one_image else batch
        if args.picture:
            yield picture(args.picture, found.image_format, shape[1:]).expand(batch, *shape)
        else:
            yield random_pixels((batch, *shape))


def picture(path: Path, image_format: str, size: list[int]) -> Tensor:
    """(1, 3, H, W) in float32."""
    from swinv2_backbone.d2.data.loading.images import read_image

    pixels = torch.from_numpy(read_image(path, image_format).copy()).permute(2, 0, 1)[None]
    return F.interpolate(pixels.float(), tuple(size), mode="bilinear", antialias=True)


def notes_of(args: argparse.Namespace, found: Exportable, weights: Path) -> dict[str, str]:
    """What the file says of itself."""
    batch = 1 if found.one_image else "batch"
    channels, backbone = found.backbone.in_channels, found.backbone
    return {
        "what": args.what,
        "source": " ".join([args.model or args.config_file, *args.opts]),
        "weights": str(args.weights or weights),
        "sha256": digest(weights),
        "input": f"images, float32 ({batch}, {channels}, height, width), {found.image_format}, "
        "0 to 255; the file normalises them itself",
        "mean": json.dumps([float(f"{number:.7g}") for number in found.mean]),
        "std": json.dumps([float(f"{number:.7g}") for number in found.std]),
        **{name: words for name, words in found.outputs.items()},
        "windows": json.dumps(backbone.window_sizes),
        "normaliser": json.dumps(backbone.pretrained_window_sizes),
        "made by": f"swinv2_backbone {__version__}, PyTorch {torch.__version__}",
    }


def digest(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder in the order of their names."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", metavar="NAME", help="a published variant or seed name")
    source.add_argument("--config-file", metavar="FILE", help=".yaml, or .py of a LazyConfig")
    parser.add_argument(
        "--weights", metavar="FILE", help="default: the published ones, or what the config says"
    )
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument("--what", required=True, choices=dict.fromkeys([*OF_A_NAME, *OF_A_CONFIG]))
    parser.add_argument("--output", required=True, type=Path, metavar="FILE")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="to compare at, instead of random pixels"
    )
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="changes of config keys, at the end of the command",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    # Of PyTorch's exporters and Detectron2, about their own insides.
    warnings.simplefilter("ignore")
    try:
        main()
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
