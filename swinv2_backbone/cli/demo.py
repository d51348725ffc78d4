"""Make a dataset, train a model on it, evaluate it and draw its predictions, in one command.

tools/demo.py              a Mask R-CNN: boxes and masks of objects
tools/demo.py --semantic   a UPerNet: the class of each pixel

When run again, it reuses what exists; an interrupted run is resumed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from swinv2_backbone.cli.arguments import add_config_changes, config_changes, new_parser
from swinv2_backbone.cli.errors import errors_as_messages
from swinv2_backbone.recipes import recipes_folder

OBJECTS = "mask_rcnn_swinv2_demo.yaml"
SEMANTIC = "upernet_swinv2_demo.yaml"
REPORTED = {
    OBJECTS: {"bbox/AP": "box AP", "bbox/AP50": "box AP50", "segm/AP": "mask AP"}
    | {"segm/AP50": "mask AP50"},
    SEMANTIC: {
        "sem_seg/mIoU": "mIoU",
        "sem_seg/pACC": "pixel accuracy",
        "sem_seg_TTA/mIoU": "mIoU with test-time augmentation",
    },
}


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    with errors_as_messages():
        run(args)


def run(args: argparse.Namespace) -> None:
    config_changes(SEMANTIC if args.semantic else OBJECTS, args.opts)
    import torch

    from swinv2_backbone.d2.demo.dataset import generate_demo_dataset

    name = SEMANTIC if args.semantic else OBJECTS
    config = recipes_folder() / name
    opts = ["MODEL.DEVICE", "cuda" if torch.cuda.is_available() else "cpu", *args.opts]
    generate_demo_dataset("datasets/demo")
    train(config, opts)
    tested, pictures = draw(config, opts, args.pictures)
    results = last_results(pictures.parent / "metrics.json", next(iter(REPORTED[name])))
    print(f"\nDemo, on {tested} images that were not trained on:")
    print("  " + ", ".join(f"{label} {results[key]:.1f}" for key, label in REPORTED[name].items()))
    print(f"  truth (left) and prediction (right): {pictures}, some of them in {pictures}.jpg")


def train(config: Path, opts: list[str]) -> None:
    command = [sys.executable, "-m", "swinv2_backbone", "train", str(config), "--resume"]
    subprocess.run(command + opts, check=True)


def draw(config: Path, opts: list[str], count: int) -> tuple[int, Path]:
    """Draw predictions of the trained model; return the number of test images, and the folder."""
    from swinv2_backbone.d2.config.yacs import load_config
    from swinv2_backbone.d2.demo.pictures import draw_beside_truth

    output = Path(load_config(str(config), opts).OUTPUT_DIR)
    weights = ["MODEL.WEIGHTS", str(output / "model_final.pth")]
    pictures = output / "pictures"
    return draw_beside_truth(load_config(str(config), [*opts, *weights]), pictures, count), pictures


def last_results(metrics: Path, kind: str) -> dict:
    """Return the last evaluation in a metrics.json."""
    from swinv2_backbone.d2.engine.metrics import read_lines

    return [values for _, values in read_lines(metrics) if values and kind in values][-1]


def parser() -> argparse.ArgumentParser:
    found = new_parser(__doc__)
    found.add_argument("--semantic", action="store_true", help="train a UPerNet")
    found.add_argument("--pictures", type=int, default=16, help="number of pictures to draw")
    add_config_changes(found)
    return found
