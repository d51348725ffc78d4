"""Evaluate a trained model on the test dataset of its config.

swinv2 eval output                             the output folder of a training
swinv2 eval mask_rcnn_swinv2 MODEL.WEIGHTS weights.pth
swinv2 eval output --num-gpus 8 TEST.AUG.ENABLED True
swinv2 eval output --exported detector.onnx    a file of swinv2 export, on the CPU

The weights of an output folder are model_best.pth if the training kept it (TEST.BEST_METRIC), else
model_final.pth, else those of the last checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from swinv2_backbone.cli import train
from swinv2_backbone.cli.arguments import add_config_changes, add_imports, new_parser
from swinv2_backbone.cli.training_options import add_processes


def main(argv: Sequence[str] | None = None) -> None:
    words = list(argv or ())
    parser().parse_args(words)  # the help and errors of this command
    train.main(["--eval-only", *words])


def parser() -> argparse.ArgumentParser:
    found = new_parser(__doc__)
    add = found.add_argument
    add("--config-file", default="", metavar="FILE", help="a recipe's name, a folder or a file")
    add("--exported", metavar="FILE", help="an exported file instead of the model, on the CPU")
    add_processes(found)
    add_imports(found)
    add_config_changes(found)
    return found
