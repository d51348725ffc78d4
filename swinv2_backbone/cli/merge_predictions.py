"""Merge the results of ``swinv2 predict --shards DIR`` into one COCO file.

  tools/merge_predictions.py DIR results.json

The file has images, categories and annotations with scores. Images that failed are named, and the
exit code is 1. To try them again, remove the results of their shards, and repeat the prediction:

  tools/merge_predictions.py DIR --remove-failed
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from swinv2_backbone.cli.arguments import new_parser
from swinv2_backbone.cli.errors import errors_as_messages

SHOWN = 10


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    with errors_as_messages():
        run(args)


def run(args: argparse.Namespace) -> None:
    from swinv2_backbone.d2.inference.scale.merge import merge, remove_failed

    if bool(args.output) == args.remove_failed:
        raise ValueError("give either the FILE to write, or --remove-failed")
    if args.remove_failed:
        count = remove_failed(args.folder)
        print(f"{count} images had failed; the same prediction command predicts their shards anew")
        return
    if args.output.exists() and not args.overwrite:
        raise ValueError(f"{args.output} exists: choose another file, or add --overwrite")
    count, failed = merge(args.folder, args.output)
    print(f"{count - len(failed):,} images in {args.output}")
    if failed:
        more = [f"... and {len(failed) - SHOWN} more"] if len(failed) > SHOWN else []
        sys.exit("\n".join([f"{len(failed)} images failed:", *failed[:SHOWN], *more]))


def parser() -> argparse.ArgumentParser:
    found = new_parser(__doc__)
    found.add_argument("folder", type=Path, metavar="DIR", help="of the results in shards")
    found.add_argument("output", type=Path, nargs="?", metavar="FILE", help="JSON to write")
    found.add_argument("--overwrite", action="store_true", help="replace an existing FILE")
    found.add_argument(
        "--remove-failed",
        action="store_true",
        help="remove the results of shards with failed images instead",
    )
    return found
