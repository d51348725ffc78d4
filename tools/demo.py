#!/usr/bin/env python
"""The whole road in one command: make a dataset, train a detector on it, evaluate, draw.

Run again, it reuses what is there; an interrupted training goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.data import DatasetCatalog
from detectron2.data.detection_utils import read_image

from swinv2_backbone.d2.config import load_config
from swinv2_backbone.d2.data.custom import register_custom_datasets
from swinv2_backbone.d2.data.demo import generate_demo_dataset
from swinv2_backbone.d2.predictor import Predictor, beside

HERE = Path(__file__).resolve().parent
CONFIG = HERE.parent / "configs" / "mask_rcnn_swinv2_demo.yaml"


def train(opts: list[str]) -> None:
    command = [sys.executable, str(HERE / "train_net.py"), "--config-file", str(CONFIG), "--resume"]
    subprocess.run(command + opts, check=True)


def last_results(metrics: Path) -> dict:
    """The evaluation written last to a metrics.json of Detectron2."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [line for line in lines if "bbox/AP" in line][-1]


def draw(opts: list[str], folder: Path, count: int) -> int:
    """Truth (left) beside prediction (right) for the first test images that have objects.

    Returns how many test images there are.
    """
    cfg = load_config(str(CONFIG), [*opts, "MODEL.WEIGHTS", str(folder.parent / "model_final.pth")])
    register_custom_datasets(cfg)
    predictor = Predictor(cfg)
    folder.mkdir(exist_ok=True)
    images = DatasetCatalog.get(cfg.DATASETS.TEST[0])
    for image in [image for image in images if image["annotations"]][:count]:
        picture = read_image(image["file_name"], format="BGR")
        drawn = beside(
            predictor.draw_truth(picture, image), predictor.draw(picture, predictor(picture))
        )
        cv2.imwrite(str(folder / Path(image["file_name"]).name), np.ascontiguousarray(drawn))
    return len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=16, help="how many to draw")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="changes of config keys"
    )
    args = parser.parse_args()
    opts = ["MODEL.DEVICE", "cuda" if torch.cuda.is_available() else "cpu", *args.opts]
    generate_demo_dataset("datasets/demo")
    train(opts)
    output = Path(load_config(str(CONFIG), opts).OUTPUT_DIR)
    tested = draw(opts, output / "pictures", args.pictures)
    results = last_results(output / "metrics.json")
    print(f"\nDemo, on {tested} images that were not trained on:")
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        print(f"  {name} AP {results[f'{kind}/AP']:.1f}, AP50 {results[f'{kind}/AP50']:.1f}")
    print(f"  truth (left) and prediction (right): {output / 'pictures'}")


if __name__ == "__main__":
    main()
