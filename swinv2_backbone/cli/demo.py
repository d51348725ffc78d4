#!/usr/bin/env python
"""The whole road in one command: make a dataset, train a model on it, evaluate, draw.

tools/demo.py              a Mask R-CNN: boxes and masks of objects
tools/demo.py --semantic   a UPerNet: the class of each pixel

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

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.datasets.custom import register_custom_datasets
from swinv2_backbone.d2.data.loading.images import read_image
from swinv2_backbone.d2.demo.dataset import generate_demo_dataset
from swinv2_backbone.d2.inference.predictor import beside, predictor_of

HERE = Path(__file__).resolve().parent
OBJECTS = HERE.parent / "configs" / "mask_rcnn_swinv2_demo.yaml"
SEMANTIC = HERE.parent / "configs" / "upernet_swinv2_demo.yaml"
SHEET = 9  # pictures on the contact sheet
REPORTED = {
    OBJECTS: {"bbox/AP": "box AP", "bbox/AP50": "box AP50", "segm/AP": "mask AP"}
    | {"segm/AP50": "mask AP50"},
    SEMANTIC: {
        "sem_seg/mIoU": "mIoU",
        "sem_seg/pACC": "pixel accuracy",
        "sem_seg_TTA/mIoU": "mIoU with test-time augmentation",
    },
}


def train(config: Path, opts: list[str]) -> None:
    command = [sys.executable, str(HERE / "train_net.py"), "--config-file", str(config), "--resume"]
    subprocess.run(command + opts, check=True)


def last_results(metrics: Path, kind: str) -> dict:
    """The evaluation written last to a metrics.json of Detectron2."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [line for line in lines if kind in line][-1]


def draw(config: Path, opts: list[str], folder: Path, count: int) -> int:
    """Truth (left) beside prediction (right) for the first test images that have something.

    Returns how many test images there are.
    """
    cfg = load_config(str(config), [*opts, "MODEL.WEIGHTS", str(folder.parent / "model_final.pth")])
    register_custom_datasets(cfg)
    predictor, sheet = predictor_of(cfg), []
    folder.mkdir(exist_ok=True)
    images = DatasetCatalog.get(cfg.DATASETS.TEST[0])
    for image in [image for image in images if image.get("annotations", True)][:count]:
        picture = read_image(image["file_name"], "BGR")
        drawn = beside(
            predictor.draw_truth(picture, image), predictor.draw(picture, predictor(picture))
        )
        cv2.imwrite(str(folder / Path(image["file_name"]).name), np.ascontiguousarray(drawn))
        sheet.append(drawn)
    cv2.imwrite(f"{folder}.jpg", contact_sheet(sheet[:SHEET]))
    return len(images)


def contact_sheet(pictures: list[np.ndarray], columns: int = 3, width: int = 400) -> np.ndarray:
    """Pictures of any size in rows, each scaled to ``width`` pixels."""
    rows = []
    for start in range(0, len(pictures), columns):
        row = [
            cv2.resize(
                p, None, fx=width / p.shape[1], fy=width / p.shape[1], interpolation=cv2.INTER_AREA
            )
            for p in pictures[start : start + columns]
        ]
        height = max(len(p) for p in row)
        cells = [np.full((height + 8, width + 8, 3), 255, np.uint8) for _ in range(columns)]
        for cell, picture in zip(cells, row):
            cell[: picture.shape[0], : picture.shape[1]] = picture
        rows.append(np.concatenate(cells, axis=1))
    return np.concatenate(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--semantic", action="store_true", help="train a UPerNet")
    parser.add_argument("--pictures", type=int, default=16, help="how many to draw")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="changes of config keys"
    )
    args = parser.parse_args()
    config = SEMANTIC if args.semantic else OBJECTS
    opts = ["MODEL.DEVICE", "cuda" if torch.cuda.is_available() else "cpu", *args.opts]
    generate_demo_dataset("datasets/demo")
    train(config, opts)
    output = Path(load_config(str(config), opts).OUTPUT_DIR)
    tested = draw(config, opts, output / "pictures", args.pictures)
    names = REPORTED[config]
    results = last_results(output / "metrics.json", next(iter(names)))
    print(f"\nDemo, on {tested} images that were not trained on:")
    print("  " + ", ".join(f"{name} {results[key]:.1f}" for key, name in names.items()))
    pictures = output / "pictures"
    print(f"  truth (left) and prediction (right): {pictures}, some of them in {pictures}.jpg")


if __name__ == "__main__":
    main()
