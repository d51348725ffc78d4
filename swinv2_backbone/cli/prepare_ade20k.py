"""Prepare ADE20K's labels for Detectron2's datasets ade20k_sem_seg_train and ade20k_sem_seg_val.

tools/prepare_ade20k.py datasets/ADEChallengeData2016

It makes annotations_detectron2/ beside annotations/: every label minus 1; "other" becomes 255.
When run again, it makes only the files that are missing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from swinv2_backbone.cli.arguments import new_parser
from swinv2_backbone.cli.errors import errors_as_messages


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    with errors_as_messages():
        run(args)


def run(args: argparse.Namespace) -> None:
    from swinv2_backbone.d2.data.datasets.ade20k import prepare

    prepared = prepare(args.root, workers=args.workers, overwrite=args.overwrite)
    print(f"label files: {prepared.made} made, {prepared.kept} kept")


def parser() -> argparse.ArgumentParser:
    found = new_parser(__doc__)
    found.add_argument(
        "root",
        metavar="ROOT",
        nargs="?",
        type=Path,
        default=os.environ.get("DETECTRON2_DATASETS", "datasets"),
        help="the folder ADEChallengeData2016, or one that holds it; "
        "default: $DETECTRON2_DATASETS, or datasets",
    )
    found.add_argument(
        "--workers", metavar="N", type=int, help="threads; default: one for each CPU, at most 8"
    )
    found.add_argument("--overwrite", action="store_true", help="remake the files that exist")
    return found
