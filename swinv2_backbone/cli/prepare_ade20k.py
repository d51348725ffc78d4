#!/usr/bin/env python
"""Prepare ADE20K's labels for Detectron2's datasets ade20k_sem_seg_train and ade20k_sem_seg_val.

tools/prepare_ade20k.py datasets/ADEChallengeData2016

From annotations/ it makes annotations_detectron2/ beside it, in which every label is one less and
"other" is 255.  Run again, it makes what is missing.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from swinv2_backbone.d2.data.datasets.ade20k import prepare


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "root",
        metavar="ROOT",
        nargs="?",
        type=Path,
        default=os.environ.get("DETECTRON2_DATASETS", "datasets"),
        help="the folder ADEChallengeData2016, or one that holds it; "
        "default: $DETECTRON2_DATASETS, or datasets",
    )
    parser.add_argument(
        "--workers", metavar="N", type=int, help="threads; default: one a CPU, at most 8"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="make all files anew, also those that are there"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    prepared = prepare(args.root, workers=args.workers, overwrite=args.overwrite)
    print(f"{prepared.made} label files made, {prepared.kept} kept")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
