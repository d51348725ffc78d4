#!/usr/bin/env python
"""Convert SwinV2 weights between all layouts: a file of any of them in, one of your choice out.

tools/convert_checkpoint.py swinv2_tiny_patch4_window8_256.pth swinv2_tiny.safetensors
tools/convert_checkpoint.py output/model_final.pth hf_folder --to huggingface --check
tools/convert_checkpoint.py swinv2://swinv2_tiny_window8_256 tiny.pth --to detectron2

Of a detector it takes the backbone.  Files that do not say which windows they were trained with
need --variant or --pretrained-window-sizes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from swinv2_backbone import VARIANTS, save_checkpoint
from swinv2_backbone.build import model_for
from swinv2_backbone.checkpoints.fetch import fetch
from swinv2_backbone.checkpoints.load import load_into
from swinv2_backbone.checkpoints.pretrained_window import architecture_of
from swinv2_backbone.checkpoints.read import read_checkpoint
from swinv2_backbone.checkpoints.save import TARGETS
from swinv2_backbone.variants import variant_name


def convert(args: argparse.Namespace) -> None:
    checkpoint = read_checkpoint(fetch(args.source), args.prefix)
    windows, pretrained = one_or_all(args.window_size), one_or_all(args.pretrained_window_sizes)
    if args.variant:
        variant = VARIANTS[variant_name(args.variant)]
        named, found = architecture_of(args.variant), checkpoint.architecture
        if named != found:
            raise ValueError(f"--variant {args.variant} has {named}, but {args.source} has {found}")
        windows = windows or variant.window_sizes
        pretrained = pretrained or variant.pretrained_window_sizes
    if args.pretrained_window_sizes and checkpoint.pretrained_windows:
        # The user knows better than, say, the name of a file.
        windows = windows or checkpoint.pretrained_windows.trained_windows
        checkpoint.pretrained_windows = None
    model = model_for(checkpoint, window_size=windows, pretrained_window_sizes=pretrained).eval()
    print(load_into(model, checkpoint))
    left = save_checkpoint(model, args.target, args.to, overwrite=args.overwrite)
    print(f"written     {args.target} (layout: {args.to})")
    if left:
        print(f"left out    {', '.join(left)}, for which that layout has no place")
    if args.check:
        check(model, args.target, left)


def one_or_all(sizes: list[int] | None) -> int | list[int] | None:
    return sizes[0] if sizes and len(sizes) == 1 else sizes


def check(model: torch.nn.Module, target: Path, left: list[str]) -> None:
    """Read the file again and compare every tensor, and the features of an image, to the bit.

    Raises:
        ValueError: something differs.
    """
    checkpoint = read_checkpoint(target)
    again = model_for(checkpoint).eval()
    load_into(again, checkpoint)
    expected, found = model.state_dict(), again.state_dict()
    if "head.weight" in expected and "head.weight" not in found:  # a detector's has no head
        model = model.backbone
        expected = model.state_dict()
    wrong = [
        name
        for name, value in expected.items()
        if name not in left and not (name in found and torch.equal(found[name], value))
    ]
    side = 8 * max(max(window) for window in _backbone(model).window_sizes)
    images = torch.randn(1, _backbone(model).in_channels, side, side)
    with torch.no_grad():
        before, after = (_backbone(one)(images) for one in (model, again))
    last = next(reversed(before))
    if last in after and not torch.equal(before[last], after[last]):
        wrong.append(f"the feature map {last}")
    if wrong:
        raise ValueError(f"{target} differs from its source in {', '.join(wrong)}")
    print(f"checked     {len(found)} tensors and a feature map, equal to the bit")


def _backbone(model: torch.nn.Module) -> torch.nn.Module:
    return getattr(model, "backbone", model)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", metavar="SRC", help="a file, a folder, an address or swinv2://NAME"
    )
    parser.add_argument("target", metavar="DST", type=Path, help=".safetensors, .pth, .pt or .bin")
    parser.add_argument("--to", default="native", choices=TARGETS)
    parser.add_argument("--check", action="store_true", help="read the result again and compare")
    parser.add_argument("--variant", metavar="NAME", help="which published model it is, or was")
    parser.add_argument(
        "--window-size", type=int, nargs="+", metavar="M", help="one, or one a stage"
    )
    parser.add_argument(
        "--pretrained-window-sizes",
        type=int,
        nargs="+",
        metavar="P",
        help="one, or one a stage; instead of what the file says",
    )
    parser.add_argument("--prefix", help="of the backbone, for a file with several")
    parser.add_argument("--overwrite", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        convert(parse_arguments())
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
