"""Report what a finished run got right and wrong, in tables and pictures.  Needs no GPU.

tools/analyze_results.py --config-file output/config.yaml --output output/analysis

For detection: AP by class and by size of the objects, which classes are confused, precision over
recall, and drawings of the images with the most errors.  For semantic segmentation: IoU by class,
pixel confusion, and the images with the lowest mIoU.  For both: training curves.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from swinv2_backbone.cli.arguments import (
    add_config_changes,
    add_imports,
    config_changes,
    new_parser,
)
from swinv2_backbone.cli.errors import errors_as_messages

IOU, CONFIDENCE, WORST = 0.5, 0.5, 20  # as in Settings, which needs Detectron2 (a test compares)


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    with errors_as_messages():
        run(args)


def run(args: argparse.Namespace) -> None:
    config_changes(args.config_file, args.opts, args.imports)
    from swinv2_backbone.d2.evaluation.analysis.report import Report, Settings
    from swinv2_backbone.d2.evaluation.analysis.run import open_run

    settings = Settings(args.iou, args.confidence, args.worst)
    report = Report(args.output, args.overwrite)
    finished = open_run(args.config_file, args.opts, args.dataset, args.predictions, args.imports)
    report.write(finished, settings)
    print("\n\n".join(report.texts))
    print(f"\nPictures and results.json: {args.output}")


def parser() -> argparse.ArgumentParser:
    found = new_parser(__doc__)
    add = found.add_argument
    add("--config-file", required=True, metavar="FILE", help="the run's OUTPUT_DIR/config.yaml")
    add(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="as written by Detectron2's evaluators; default: those in OUTPUT_DIR/inference",
    )
    add("--dataset", metavar="NAME", help="default: the first of DATASETS.TEST")
    add("--output", required=True, type=Path, metavar="DIR")
    add("--overwrite", action="store_true", help="replace an earlier analysis")
    add(
        "--iou",
        type=float,
        default=IOU,
        help="lowest IoU of boxes at which a detection matches an object (%(default)s)",
    )
    add(
        "--confidence",
        type=float,
        default=CONFIDENCE,
        help="lowest score for confusion and pictures (%(default)s)",
    )
    add("--worst", type=int, default=WORST, help="number of images to draw (%(default)s)")
    add_imports(found)
    add_config_changes(found)
    return found
