"""Count the parameters and multiply-adds of models, and the memory that training them needs.

tools/analyze_model.py --table                   all variants, beside the published numbers
tools/analyze_model.py --write docs/MODELS.md    the same as a document
tools/analyze_model.py --model swinv2_tiny_window8_256 --image-size 800 1333 --window-size 16
tools/analyze_model.py --memory --model swinv2_giant --image-size 1536 --processes 64 \\
    --checkpointing                              the memory of each GPU in training
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from swinv2_backbone.cli.arguments import new_parser
from swinv2_backbone.cli.errors import errors_as_messages
from swinv2_backbone.variants import VARIANTS, variant_name

PRECISIONS = ("float32", "bfloat16", "float16")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    with errors_as_messages():
        run(args)


def run(args: argparse.Namespace) -> None:
    from swinv2_backbone.checkpoints.durable import write_text
    from swinv2_backbone.cli import models_document

    if args.model:
        print_model(args)
        return
    rows, found = models_document.analyze_all()
    if args.table:
        print(models_document.tables(rows))
    elif not found:
        write_text(args.write, models_document.document(rows))
    if found:
        sys.exit("not as published:\n" + "\n".join(found))


def print_model(args: argparse.Namespace) -> None:
    name, variant = args.model, VARIANTS[variant_name(args.model)]
    size = tuple(args.image_size or (variant.image_size,))
    if len(size) > 2:
        raise ValueError(f"--image-size is one number or two, got {len(size)}")
    height, width = size if len(size) == 2 else size * 2
    given = args.window_size
    windows = given[0] if given and len(given) == 1 else given
    shown = (
        f"{height} x {width} pixels, windows {', '.join(map(str, given or variant.window_sizes))}"
    )
    if args.memory:
        print_memory(args, (height, width), windows, shown)
    else:
        print_costs(name, (height, width), windows, shown)


def print_costs(
    name: str, size: tuple[int, int], windows: int | Sequence[int] | None, shown: str
) -> None:
    from swinv2_backbone.cli.flops import analyze
    from swinv2_backbone.cli.models_document import stage_table

    print(f"{name}: one image of {shown}\n\n{stage_table(analyze(name, size, windows))}")
    print("\nMaps are padded to whole windows; these FLOPs include the padding.")


def print_memory(
    args: argparse.Namespace,
    size: tuple[int, int],
    windows: int | Sequence[int] | None,
    shown: str,
) -> None:
    import torch

    from swinv2_backbone.training_memory import Setting, table_of

    setting = Setting(
        args.model,
        size,
        windows,
        batch=args.batch,
        dtype=None if args.precision == "float32" else getattr(torch, args.precision),
        checkpointing=args.checkpointing,
        kernel=args.kernel,
    )
    print(f"{args.model}: {args.batch} x {shown}, {args.processes} processes; GiB of each\n")
    print(table_of(setting, args.processes))


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    found = parser()
    args = found.parse_args(argv)
    if not args.model and (args.image_size or args.window_size or args.memory):
        found.error("--image-size, --window-size and --memory go with --model")
    if min(args.batch, args.processes) < 1:
        found.error("--batch and --processes must be positive")
    return args


def parser() -> argparse.ArgumentParser:
    found = new_parser(__doc__)
    task = found.add_mutually_exclusive_group(required=True)
    task.add_argument("--table", action="store_true", help="all variants; fails on a deviation")
    task.add_argument("--write", type=Path, metavar="FILE", help="the document of all variants")
    task.add_argument("--model", metavar="NAME", help="one variant, by stage")
    memory = found.add_argument_group("memory of training, with --model")
    memory.add_argument("--memory", action="store_true", help="instead of multiply-adds")
    memory.add_argument("--batch", type=int, default=1, help="images of one process")
    memory.add_argument("--processes", type=int, default=1, help="one for each GPU")
    memory.add_argument("--precision", choices=PRECISIONS, default="bfloat16", help="mixed")
    memory.add_argument("--checkpointing", action="store_true", help="of activations")
    memory.add_argument("--kernel", choices=("triton", "tiles", "reference"), default="triton")
    found.add_argument(
        "--image-size", type=int, nargs="+", metavar="PIXELS", help="height and width, or one side"
    )
    found.add_argument(
        "--window-size", type=int, nargs="+", metavar="M", help="in tokens; one, or one per stage"
    )
    return found
