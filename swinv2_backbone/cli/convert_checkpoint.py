"""Convert SwinV2 weights from any layout into any other.

tools/convert_checkpoint.py swinv2_tiny_patch4_window8_256.pth swinv2_tiny.safetensors
tools/convert_checkpoint.py output/model_final.pth hf_folder --to huggingface --check
tools/convert_checkpoint.py swinv2://swinv2_tiny_window8_256 tiny.pth --to detectron2

Of a detector, only the backbone is converted.  Files that do not state their pretrained windows
need --variant or --pretrained-window-sizes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from swinv2_backbone.cli.arguments import STEM_RULES, new_parser
from swinv2_backbone.cli.errors import errors_as_messages

LAYOUTS = (  # the keys of checkpoints.convert.TARGETS, which needs torch (a test compares)
    *("native", "detectron2", "timm", "microsoft", "huggingface", "mmpretrain", "torchvision"),
)


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    with errors_as_messages():
        run(args)


def run(args: argparse.Namespace) -> None:
    from swinv2_backbone.checkpoints.save import save_checkpoint
    from swinv2_backbone.cli.conversion import compare_with_file, read_model

    model, report = read_model(
        args.source,
        variant=args.variant,
        window_size=one_or_all(args.window_size),
        pretrained_window_sizes=one_or_all(args.pretrained_window_sizes),
        prefix=args.prefix,
        in_channels=args.in_channels,
        stem=args.stem,
    )
    print(report)
    left = save_checkpoint(model, args.target, args.to, overwrite=args.overwrite)
    print(f"written     {args.target} (layout: {args.to})")
    if left:
        print(f"left out    {', '.join(left)}, for which that layout has no place")
    if args.check:
        count = compare_with_file(model, args.target, left)
        print(f"checked     {count} tensors and a feature map, bit-identical")


def one_or_all(sizes: list[int] | None) -> int | list[int] | None:
    """Return a list of one number, which is for all stages, as that number."""
    return sizes[0] if sizes and len(sizes) == 1 else sizes


def parser() -> argparse.ArgumentParser:
    found = new_parser(__doc__)
    add = found.add_argument
    add("source", metavar="SRC", help="a file, a folder, an address, swinv2:// or hf://")
    add("target", metavar="DST", type=Path, help=".safetensors, .pth, .pt or .bin")
    add("--to", default="native", choices=LAYOUTS, help="layout of DST (%(default)s)")
    add("--check", action="store_true", help="read the result again and compare")
    add("--variant", metavar="NAME", help="the published model that SRC is, or started from")
    add("--window-size", type=int, nargs="+", metavar="M", help="one number, or one for each stage")
    add(
        "--pretrained-window-sizes",
        type=int,
        nargs="+",
        metavar="P",
        help="one number, or one for each stage; overrides those of the file",
    )
    add("--prefix", help="keys of the backbone begin with it, for a file with several")
    add("--in-channels", type=int, metavar="N", help="channels or bands of DST, by --stem")
    add("--stem", choices=STEM_RULES, help="rule for another number of bands")
    add("--overwrite", action="store_true")
    return found
