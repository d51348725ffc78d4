"""A training so small that it can be run, killed and resumed many times.

Everything that could make a resumed one differ is on: drop path, augmentation, sampling of
proposals, upright and other images, an average of the weights.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase
from detectron2.structures import BoxMode
from detectron2.utils import comm
from small_configs import lazy_config, yaml_config

from swinv2_backbone.d2.config.lazy import plan_from_lazy
from swinv2_backbone.d2.engine.trainer import Trainer
from swinv2_backbone.d2.engine.training import Training

NAME = "small_training"
SIZES = [(61, 83), (83, 61), (64, 96)]


def register(folder: Path, count: int = 8) -> list[dict]:
    """Register images with two objects each under ``NAME``; returns the records."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number in range(count):
        height, width = SIZES[number % len(SIZES)]
        path = folder / f"{number}.png"
        noise = np.random.default_rng(number).integers(0, 120, (height, width, 3), dtype=np.uint8)
        noise[10:30, 10:40] += 100
        cv2.imwrite(str(path), noise)
        record = {"file_name": str(path), "image_id": number, "height": height, "width": width}
        boxes = ([10, 10, 40, 30], [20, 30, 50, 55])
        records.append(record | {"annotations": [_object(*item) for item in enumerate(boxes)]})
    forget()
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).set(thing_classes=["a", "b"])
    return records


def forget() -> None:
    if NAME in DatasetCatalog:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


def _object(category: int, box: list[int]) -> dict:
    x1, y1, x2, y2 = box
    return {
        "bbox": box,
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": category,
        "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
    }


def config(folder: Path, iterations: int, period: int, workers: int = 0, **more):
    """A yacs config; ``more``: keys with __ for the dots."""
    cfg = yaml_config("mask_rcnn_swinv2", small=True)
    cfg.OUTPUT_DIR, cfg.SEED = str(folder), 7
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (NAME,), ()
    cfg.DATALOADER.NUM_WORKERS = workers
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD = iterations, period
    cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.STEPS, cfg.TEST.EVAL_PERIOD = 2, (), 0
    cfg.SOLVER.EMA.ENABLED = True
    for key, value in more.items():
        *path, last = key.split("__")
        node = cfg
        for part in path:
            node = node[part]
        node[last] = value
    return cfg


def lazy_training(folder: Path, iterations: int, period: int, workers: int = 0):
    """The same as a LazyConfig."""
    cfg = lazy_config("mask_rcnn_swinv2", small=True)
    cfg.train.output_dir, cfg.train.init_checkpoint = str(folder), ""
    cfg.dataloader.train.dataset.names, cfg.dataloader.test.dataset.names = NAME, []
    cfg.dataloader.train.num_workers = workers
    cfg.train.max_iter, cfg.train.checkpointer.period, cfg.train.eval_period = iterations, period, 0
    cfg.train.ema.enabled = True
    return cfg


class Recorder(HookBase):
    """The losses of the main process."""

    def __init__(self):
        self.losses: dict[int, float] = {}

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        if "total_loss" in latest:
            self.losses[self.trainer.iter] = latest["total_loss"][0]


def train(cfg, resume: bool = False, stop_before: int | None = None) -> dict[int, float]:
    """Train by either kind of config; returns iteration -> loss.

    Args:
        stop_before: an iteration before which to break off, as if the process had been killed.
    """
    torch.set_num_threads(1)
    is_lazy = "train" in cfg
    torch.manual_seed(7 + comm.get_rank())  # each process draws its own weights
    np.random.seed(7)
    if is_lazy:
        trainer = Training(plan_from_lazy(cfg))
        loop = trainer.step
    else:
        trainer = loop = Trainer(cfg)
    trainer.resume_or_load(resume)
    recorder = Recorder()
    loop.register_hooks([recorder, *([_BreakOff(stop_before)] if stop_before else [])])
    with contextlib.suppress(BrokenOffError):
        trainer.train()
    return recorder.losses


class BrokenOffError(Exception):
    pass


class _BreakOff(HookBase):
    def __init__(self, iteration: int):
        self.iteration = iteration

    def before_step(self) -> None:
        if self.trainer.iter == self.iteration:
            raise BrokenOffError
