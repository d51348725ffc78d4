"""A detector or segmentor so small that it predicts hundreds of images a second, as files.

Its weights are random; of detectors, any score counts, so that every image has detections.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from oracle import randomize
from PIL import Image
from small_configs import yaml_config

from swinv2_backbone.d2.modeling.build import build_model

CLASSES = ["ant", "bee", "cat"]


def write_model(folder: Path, stem: str = "mask_rcnn_swinv2", **changes) -> Path:
    """Write a model's weights and its config.yaml, and return the path of the config."""
    folder.mkdir(parents=True, exist_ok=True)
    cfg = yaml_config(stem, small=True)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), ()
    cfg.DATASETS.CUSTOM.CLASSES = CLASSES
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(CLASSES)
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = cfg.TEST.DETECTIONS_PER_IMAGE = 3
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.SWINV2.PRETRAINED_WINDOW_SIZES = [4, 4, 4, 4]
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = 32
    for key, value in changes.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    torch.manual_seed(0)
    model = build_model(cfg)
    randomize(model, seed=0)
    cfg.MODEL.WEIGHTS = str(folder / "model.pth")
    torch.save({"model": model.state_dict()}, cfg.MODEL.WEIGHTS)
    config = folder / "config.yaml"
    config.write_text(cfg.dump())
    return config


def write_images(folder: Path, count: int, size: tuple[int, int] = (32, 32)) -> list[Path]:
    """Write images of noise, no two the same; return their paths in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(noise).save(path, compress_level=1)
    return paths
