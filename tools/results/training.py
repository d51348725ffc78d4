"""The jobs: prepare a set, measure the step of every backbone, train and test one.

Every training gets the same time, not the same number of iterations: the iterations of a backbone
follow from its step, which is measured before, in turns with the others.
"""

from __future__ import annotations

import logging
import re
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from io import StringIO
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from torch import nn

from results.backbones import BACKBONES, parameters
from results.sets import BY_NAME
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.datasets.custom import register_custom_datasets
from swinv2_backbone.d2.data.loading.mapper import DatasetMapper
from swinv2_backbone.d2.engine.trainer import Trainer

CONFIG = Path(__file__).parents[2] / "configs" / "mask_rcnn_swinv2_demo.yaml"
ROUNDS = 9  # steps of every backbone that are measured
DETECTIONS = 300  # in an image; micrographs have hundreds of nuclei


def prepare(folder: Path, *, name: str, data: str) -> dict:
    """Write the set's COCO files."""
    own = BY_NAME[name]
    target = _folder(folder, name)
    target.mkdir(parents=True, exist_ok=True)
    with redirect_stdout(StringIO()):
        own.prepare(own.clone(Path(data)), target)
    return {}


def measure_steps(folder: Path, *, name: str) -> dict:
    """Return the median seconds of a training step of every backbone, which take turns."""
    _quiet()
    seconds: dict[str, list[float]] = {title: [] for title in BACKBONES}
    with TemporaryDirectory() as output, redirect_stdout(StringIO()):
        trainers = {
            title: Trainer(_config(folder, output, name, title, 0, ROUNDS)) for title in BACKBONES
        }
        numbers = count()
        with EventStorage(0) as storage:
            for _ in range(ROUNDS + 1):
                for title, trainer in trainers.items():
                    trainer.iter, trainer.storage = next(numbers), storage
                    start = time.perf_counter()
                    trainer.run_step()
                    seconds[title].append(time.perf_counter() - start)
    return {"steps": {title: median(own[1:]) for title, own in seconds.items()}}


def train(folder: Path, *, name: str, backbone: str, seed: int, seconds: float) -> dict:
    """Train and test one backbone in a process of its own, whose peak of memory is its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_train, folder, name, backbone, seed, seconds).result()


def _train(folder: Path, name: str, backbone: str, seed: int, seconds: float) -> dict:
    from experiments.jobs import read_result

    torch.set_num_threads(1)
    _quiet()
    step = read_result(folder, steps_of(name))["steps"][backbone]
    iterations = round(seconds / step)
    with TemporaryDirectory() as output, redirect_stdout(StringIO()):
        cfg = _config(folder, output, name, backbone, seed, iterations)
        tested = cfg.DATASETS.TEST[0]
        cfg.DATASETS.TEST = ()  # tested below
        seed_all_rng(seed)
        trainer = Trainer(cfg)
        trainer.train()
        peak = _peak_mb()
        found = _test(cfg, trainer.model, tested)
    result: dict[str, Any] = {f"{kind}_ap": value["AP"] for kind, value in found.items()}
    return result | {
        "iterations": iterations,
        "peak_mb": peak,
        "parameters": parameters(trainer.model.backbone.bottom_up),
    }


def steps_of(name: str) -> str:
    return f"steps_{name}"


def _peak_mb() -> float:
    """Return the peak of this process's memory; ``ru_maxrss`` has that of its parent, too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else float("nan")


def _quiet() -> None:
    for name in ("detectron2", "fvcore", "swinv2_backbone"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _folder(folder: Path, name: str) -> Path:
    return folder / "sets" / name


def _config(
    folder: Path, output: str, name: str, backbone: str, seed: int, iterations: int
) -> CfgNode:
    """Return the demo's recipe for a set, with another backbone."""
    own, place = BY_NAME[name], _folder(folder, name)
    cfg = load_config(str(CONFIG), ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", output])
    BACKBONES[backbone](cfg)
    cfg.SEED, cfg.MODEL.MASK_ON, cfg.MODEL.ROI_HEADS.NUM_CLASSES = seed, own.masks, own.classes
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[size] for size in own.anchors]
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (own.side,), own.side
    cfg.INPUT.MAX_SIZE_TRAIN = cfg.INPUT.MAX_SIZE_TEST = own.side * 3 // 2
    cfg.SOLVER.MAX_ITER = cfg.SOLVER.CHECKPOINT_PERIOD = iterations
    cfg.SOLVER.WARMUP_ITERS = iterations // 10
    cfg.TEST.DETECTIONS_PER_IMAGE = DETECTIONS
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = DETECTIONS
    images = place / "images"
    for split, short in (("TRAIN", "train"), ("TEST", "val")):
        node = cfg.DATASETS.CUSTOM[split]
        node.NAME, node.JSON = f"{name}_{short}", str(place / f"{short}.json")
        node.IMAGES = str(images) if images.is_dir() else ""
    return register_custom_datasets(cfg)


def _test(cfg: CfgNode, model: nn.Module, name: str) -> dict:
    mapper = DatasetMapper(cfg, is_train=False)
    loader = build_detection_test_loader(cfg, name, mapper=mapper)
    tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
    evaluator = COCOEvaluator(name, tasks, output_dir=None, max_dets_per_image=DETECTIONS)
    found = inference_on_dataset(model, loader, evaluator)
    return {task: found.get(task) or {"AP": 0.0} for task in tasks}  # without any detection
