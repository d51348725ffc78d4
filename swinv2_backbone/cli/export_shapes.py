"""The options of the export that set the shape, operator set and precision of a file."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swinv2_backbone.export.exportable import Exportable
    from swinv2_backbone.export.formats import Options

OPSETS = range(18, 24)  # that PyTorch's exporter writes
TRACED_OPSETS = range(16, 21)  # that its older tracer writes, for detectors
OF_ONNX = ("onnx", "openvino")
HALF = ("onnx", "openvino")
HALF_LIMIT = 2e-2  # the largest difference of a file in half precision


def add_shape_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "the file takes images of this size alone, and runs in more runtimes (default: dynamic)"
    add("--size", type=size, metavar="HxW|dynamic", help=text)
    add("--batch", type=int, metavar="N", help="images of a file of a fixed size (default: 1)")
    add("--opset", type=int, metavar="N", help="the ONNX operator set (default: the newest)")
    add("--half", action="store_true", help="weights in float16: half the size, less exact")


def size(text: str) -> tuple[int, int] | None:
    """Return (height, width); None for "dynamic"."""
    if text == "dynamic":
        return None
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}: give HxW, such as 512x512, or dynamic")
    return int(found[1]), int(found[2])


def check_shape_options(args: argparse.Namespace) -> None:
    """Raise ValueError for options that do not fit together."""
    if args.batch is not None and not args.size:
        raise ValueError(f"--batch {args.batch} goes with --size HxW")
    if args.batch is not None and args.batch < 1:
        raise ValueError(f"--batch {args.batch}: give at least 1")
    if args.what == "detector" and args.batch not in (None, 1):
        raise ValueError(f"--batch {args.batch}: a detector takes one image")
    opsets = TRACED_OPSETS if args.what == "detector" else OPSETS
    if args.opset is not None and args.format not in OF_ONNX:
        raise ValueError(f"--opset goes with --format {' or '.join(OF_ONNX)}")
    if args.opset is not None and args.opset not in opsets:
        raise ValueError(f"--opset {args.opset}: there are {opsets[0]} to {opsets[-1]}")
    if args.half and (args.format not in HALF or args.what == "detector"):
        raise ValueError(f"--half goes with --format {', '.join(HALF)}, and not with a detector")
    if args.half and args.int8:
        raise ValueError("give one of --half and --int8")


def fixed_shape(args: argparse.Namespace, found: Exportable) -> tuple[int, int, int, int] | None:
    """Return the only shape (B, C_in, H, W) of a file; None: it takes all."""
    if not args.size:
        return None
    return args.batch or 1, found.backbone.in_channels, *args.size


def write_options(args: argparse.Namespace) -> Options:
    from swinv2_backbone.export.formats import Options

    return Options(fixed=bool(args.size), opset=args.opset, half=args.half)


def shape_notes(args: argparse.Namespace) -> dict[str, str]:
    """Return the notes of a file of a fixed size."""
    if not args.size:
        return {}
    return {"size": "x".join(map(str, args.size)), "batch": str(args.batch or 1)}
