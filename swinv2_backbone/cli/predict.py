"""Draw a trained model's predictions on images and videos, and write them as JSON.

  tools/predict.py --config-file output/config.yaml --input photos --output drawn \\
      MODEL.WEIGHTS output/model_final.pth

The config may also be a LazyConfig (then: train.init_checkpoint=output/model_final.pth).  A model
for semantic segmentation also writes the class number of each pixel, photo.jpg_labels.png.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from swinv2_backbone.cli.arguments import add_config_changes, new_parser
from swinv2_backbone.cli.errors import errors_as_messages


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    with errors_as_messages():
        run(args)


def run(args: argparse.Namespace) -> None:
    from swinv2_backbone.d2.inference import batch
    from swinv2_backbone.d2.inference.predictor import load_predictor

    outputs = batch.plan_outputs(batch.find_inputs(args.input), args.output, args.overwrite)
    predictor = load_predictor(args.config_file, args.opts, args.confidence)
    args.output.mkdir(parents=True, exist_ok=True)
    results, failed = batch.predict_files(predictor, outputs)
    written = batch.write_results(args.output, results)
    print(f"{len(results)} files drawn to {args.output}, detections in {written}")
    if failed:
        sys.exit(f"{len(failed)} files could not be read:\n" + "\n".join(failed))


def parser() -> argparse.ArgumentParser:
    found = new_parser(__doc__)
    found.add_argument("--config-file", required=True, metavar="FILE")
    found.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="images, videos, folders of them, or glob patterns",
    )
    found.add_argument("--output", required=True, type=Path, metavar="DIR")
    found.add_argument("--confidence", type=float, default=0.5, help="lowest score to show")
    found.add_argument("--overwrite", action="store_true", help="replace existing output files")
    add_config_changes(found)
    return found
