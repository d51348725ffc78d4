#!/usr/bin/env python
"""Say what a finished run got right and wrong, in tables and pictures.  Needs no GPU.

tools/analyze_results.py --config-file output/config.yaml --output output/analysis

For detection: AP by class and by size of the objects, which classes are confused, precision over
recall, and the images with most errors drawn.  For semantic segmentation: IoU by class, confused
pixels, and the images with the lowest mIoU.  For both: the curves of the training.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from swinv2_backbone.d2.evaluation.analysis.report import Report, Settings
from swinv2_backbone.d2.evaluation.analysis.run import open_run


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", required=True, metavar="FILE", help="the run's OUTPUT_DIR/config.yaml"
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="as Detectron2's evaluators write it; default: those in OUTPUT_DIR/inference",
    )
    parser.add_argument("--dataset", metavar="NAME", help="default: the first of DATASETS.TEST")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier analysis")
    parser.add_argument(
        "--iou",
        type=float,
        default=Settings.iou,
        help="of boxes, from which a detection is the object (%(default)s)",
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=Settings.confidence,
        help="lowest score for confusion and pictures (%(default)s)",
    )
    parser.add_argument(
        "--worst", type=int, default=Settings.worst, help="how many images to draw (%(default)s)"
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="changes of config keys, at the end of the command",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    settings = Settings(args.iou, args.confidence, args.worst)
    report = Report(args.output, args.overwrite)
    run = open_run(args.config_file, args.opts, args.dataset, args.predictions)
    report.write(run, settings)
    print("\n\n".join(report.texts))
    print(f"\nPictures and results.json: {args.output}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:  # something the user can mend, so no traceback
        sys.exit(f"{type(error).__name__}: {error}")
