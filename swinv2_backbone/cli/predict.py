"""Draw a trained model's predictions on images and videos, and write them as JSON.

  tools/predict.py --config-file output/config.yaml --input photos --output drawn \\
      MODEL.WEIGHTS output/model_final.pth

The config may also be a LazyConfig (then: train.init_checkpoint=output/model_final.pth).  A model
for semantic segmentation also writes the class number of each pixel, photo.jpg_labels.png.

A file that fails does not stop the others: it is named at the end, and the exit code is 1.  Files
of a folder that are neither images nor videos are skipped, and listed by kind.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from swinv2_backbone.cli import predict_shards, tiles
from swinv2_backbone.cli.arguments import (
    add_config_changes,
    add_imports,
    config_changes,
    new_parser,
)
from swinv2_backbone.cli.errors import errors_as_messages


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    with errors_as_messages():
        run(args)


def run(args: argparse.Namespace) -> None:
    for name in ("batch_size", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    config_changes(args.config_file, args.opts, args.imports)
    if args.device:
        from swinv2_backbone.d2.inference.sources import with_device

        args.opts = with_device(args.config_file, args.opts, args.device)
    tiling = tiles.tiling_of(args)
    if args.shards:
        predict_shards.run(args)
        return
    predict_shards.require_one_process(args)
    from swinv2_backbone.d2.data.loading.bands import BANDS
    from swinv2_backbone.d2.data.validation.report import counted
    from swinv2_backbone.d2.engine.trainer import load_plan
    from swinv2_backbone.d2.inference import batch, inputs
    from swinv2_backbone.d2.inference.pipeline import Pipeline
    from swinv2_backbone.d2.inference.predictor import predictor_of_plan
    from swinv2_backbone.d2.inference.tiling import files
    from swinv2_backbone.images.kinds import described

    plan = load_plan(args.config_file, args.opts, args.imports)
    found = inputs.find_inputs(args.input, bands=plan.augmentation.image_format == BANDS)
    if tiling:
        tiles.refuse_videos(found.files)
    outputs = inputs.plan_outputs(found.files, args.output, args.overwrite)
    if found.passed_over:
        print(f"skipped ({len(found.passed_over)}):")
        print("\n".join(described(found.passed_over)))
    predictor = predictor_of_plan(plan, args.confidence, args.half)
    args.output.mkdir(parents=True, exist_ok=True)
    if tiling:
        results, failed = files.predict_large_files(predictor, tiling, outputs, args.output)
    else:
        pipeline = Pipeline(predictor, args.batch_size, args.threads)
        results, failed = batch.predict_files(pipeline, outputs, args.output)
    left = f"{len(failed)} failed, {len(found.passed_over)} skipped"
    written = args.output / inputs.RESULTS
    drawn = f"{counted(len(results), 'file')} drawn to {args.output}"
    summary = f"{drawn}, detections in {written}; {left}"
    if failed:
        sys.exit("\n".join([*failed, summary]))
    print(summary)


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
    found.add_argument("--output", type=Path, metavar="DIR")
    found.add_argument("--confidence", type=float, default=0.5, help="lowest score to show")
    found.add_argument("--overwrite", action="store_true", help="replace existing output files")
    found.add_argument("--device", help="such as cpu or cuda:1; default: that of the config")
    found.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="images of one size that enter the model together; default: 1 on a CPU, 8 on a GPU",
    )
    found.add_argument(
        "--half", action="store_true", help="mixed precision with float16 (GPUs only)"
    )
    found.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="threads that read, and as many that draw and write, beside the model; default: 2 on "
        "a CPU, up to 8 on a GPU",
    )
    tiles.add_options(found)
    predict_shards.add_options(found)
    add_imports(found)
    add_config_changes(found)
    return found
