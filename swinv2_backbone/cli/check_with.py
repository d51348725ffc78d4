"""``--check-with RUNTIME`` of the export: the file in other runtimes, before it is kept."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from swinv2_backbone.export.exportable import Exportable


def add_check_with(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check-with",
        action="append",
        default=[],
        metavar="RUNTIME",
        help="also compare the file with the model in onnxruntime, openvino, opencv, tract, ncnn, "
        "litert or coreml (repeatable); it is kept only if it passes",
    )


def check_runtimes(args: argparse.Namespace, fixed: bool, batch: int | None) -> None:
    """Raise ValueError for a runtime that is absent or cannot run such a file."""
    from swinv2_backbone.export.runtimes import check_runtime

    if args.int8 and args.check_with:
        raise ValueError("--check-with compares float files: give it without --int8")
    for name in args.check_with:
        detector = args.what == "detector"
        check_runtime(name, args.format, fixed=fixed, batch=batch, detector=detector)


def check_in_runtimes(
    args: argparse.Namespace, found: Exportable, images: Sequence[Tensor], limit: float
) -> Callable[[Path], None]:
    """Return a function that runs a file in each runtime and compares it with the model.

    It raises ValueError if a runtime fails or differs by more than ``limit`` (see Difference).
    """
    from swinv2_backbone.export.runtimes import check_in

    def check(path: Path) -> None:
        for name in args.check_with:
            report = check_in(name, path, found.expected, images, found.align)
            worst = max(report.differences, key=lambda one: one.relative)
            time = f"{report.ratio:.2f} times the time of PyTorch, on one thread each"
            print(f"{name:<11} {worst}; {time}", flush=True)
            if worst.relative > limit:
                raise ValueError(f"{args.output} was not written: {name} differs: {worst}")

    return check
