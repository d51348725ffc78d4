"""The jobs: prepare a set, measure the step of every arm, train without labels, train and test.

The members of a group of arms get the same time, not the same number of iterations: the iterations
of each follow from its step, which is measured before, in turns with the others.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from io import StringIO
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, build_detection_test_loader
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from experiments.jobs import read_result
from torch import Tensor, nn

from results.arms import GROUPS, group_of
from results.sets import BY_NAME
from results.sizes import FULL, SMALL, Size, resize, scaled
from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.datasets.custom import register_custom_datasets
from swinv2_backbone.d2.data.loading.mapper import DatasetMapper
from swinv2_backbone.d2.engine.trainer import Trainer
from swinv2_backbone.d2.pretraining.recipe import Recipe
from swinv2_backbone.d2.pretraining.simmim import pretrain

CONFIGS = Path(__file__).parents[2] / "configs"
ROUNDS = 5  # steps of every arm that are measured
MEASURED = 12  # images on which a forward is measured
RATE = 0.001  # AdamW's, at the start of the cosine
DETECTIONS = 300  # in an image; micrographs have hundreds of nuclei
METRICS = {"bbox/AP": "bbox_ap", "segm/AP": "segm_ap", "sem_seg/mIoU": "miou"}


def prepare(folder: Path, *, name: str, data: str) -> dict:
    """Write the files of a set that training reads."""
    own = BY_NAME[name]
    target = place_of(folder, name)
    target.mkdir(parents=True, exist_ok=True)
    with redirect_stdout(StringIO()):
        own.prepare(own.clone(Path(data)), target)
    return {}


def measure_steps(folder: Path, *, name: str, group: str, full: bool = False) -> dict:
    """Return the median seconds of every arm's training step, in turns."""
    _quiet()
    seconds: dict[str, list[float]] = {title: [] for title in GROUPS[group]}
    with TemporaryDirectory() as output, redirect_stdout(StringIO()):
        trainers = {
            title: Trainer(_config(folder, output, name, title, 0, ROUNDS, full))
            for title in seconds
        }
        numbers = count()
        with EventStorage(0) as storage:
            for _ in range(ROUNDS + 1):
                for title, trainer in trainers.items():
                    trainer.iter, trainer.storage = next(numbers), storage
                    start = time.perf_counter()
                    trainer.run_step()
                    _synchronize()
                    seconds[title].append(time.perf_counter() - start)
    return {"steps": {title: median(own[1:]) for title, own in seconds.items()}}


def measure_forwards(folder: Path, *, name: str, group: str, full: bool = False) -> dict:
    """Return the median seconds of every arm's backbone, with its FPN, on one image, in turns.

    The heads are not measured: their time depends on what a model has learned to detect.
    """
    _quiet()
    seconds: dict[str, list[float]] = {title: [] for title in GROUPS[group]}
    with TemporaryDirectory() as output, redirect_stdout(StringIO()), torch.inference_mode():
        backbones = {}
        for title in seconds:
            cfg = _config(folder, output, name, title, 0, 1, full)
            backbones[title] = Trainer.build_model(cfg).backbone.eval()
        mapper = DatasetMapper(cfg, is_train=False)
        loader = build_detection_test_loader(cfg, cfg.DATASETS.TEST[0], mapper=mapper)
        images = [_pixels(image, cfg) for (image,) in islice(loader, MEASURED)]
        for image in [images[0], *images]:
            for title, backbone in backbones.items():
                start = time.perf_counter()
                backbone(image)
                _synchronize()
                seconds[title].append(time.perf_counter() - start)
    return {"forwards": {title: median(own[1:]) for title, own in seconds.items()}}


def _pixels(record: dict, cfg: CfgNode) -> Tensor:
    """Return an image as a batch of one, padded to a multiple of 32 pixels."""
    mean, std = (
        torch.tensor(one)[:, None, None] for one in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
    )
    image = ((record["image"] - mean) / std).to(cfg.MODEL.DEVICE)
    height, width = image.shape[1:]
    return F.pad(image, (0, -width % 32, 0, -height % 32))[None]


def train_without_labels(folder: Path, *, name: str, iterations: int, full: bool = False) -> dict:
    """Train a SwinV2 to fill in masked squares of the set's training images."""
    _quiet()
    torch.manual_seed(0)
    size = _size(full)
    backbone = SwinV2(
        size.embed_dim,
        size.depths,
        num_heads=size.num_heads,
        window_size=8,
        out_features=("res5",),
    )
    image_size, mask_patch = size.masked
    recipe = Recipe(
        iterations=iterations,
        batch_size=16,
        image_size=image_size,
        mask_patch=mask_patch,
        lr=5e-4,
        num_workers=0,
        period=iterations,
    )
    with TemporaryDirectory() as output, redirect_stdout(StringIO()):
        cfg = _config(folder, output, name, "SwinV2, window 8", 0, 1, full)
        files = [record["file_name"] for record in DatasetCatalog.get(cfg.DATASETS.TRAIN[0])]
        weights = pretrain(backbone, files, Path(output, "run"), recipe, device=cfg.MODEL.DEVICE)
        shutil.copy(weights, weights_file(folder, name))
        (picture,) = Path(output, "run", "reconstructions").iterdir()
        shutil.copy(picture, place_of(folder, name) / "simmim.png")
    return {"images": len(files)}


def train(
    folder: Path, *, name: str, arm: str, seed: int, seconds: float, full: bool = False
) -> dict:
    """Train and test one arm in a process of its own, whose peak of memory is its own.

    Predictions and config stay in ``folder/runs``, for ``swinv2 analyze``.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_train, folder, name, arm, seed, seconds, full).result()


def _train(folder: Path, name: str, arm: str, seed: int, seconds: float, full: bool) -> dict:
    torch.set_num_threads(1)
    _quiet()
    step = read_result(folder, steps_of(name, group_of(arm)))["steps"][arm]
    iterations = max(round(seconds / step), 1)
    output = folder / "runs" / trained(name, arm, seed)
    if output.exists():  # of a training that was interrupted
        shutil.rmtree(output)
    output.mkdir(parents=True)
    with redirect_stdout(StringIO()):
        cfg = _config(folder, str(output), name, arm, seed, iterations, full)
        write_text(output / "config.yaml", cfg.dump())
        training, tested = cfg.clone(), cfg.clone()
        training.DATASETS.TEST = ()  # tested below, after the peak of memory is read
        seed_all_rng(seed)
        trainer = Trainer(training)
        trainer.resume_or_load(resume=False)
        trainer.train()
        peak = _peak_mb(cfg.MODEL.DEVICE)
        found = flatten_results_dict(Trainer.test(tested, trainer.evaluated))
    for checkpoint in output.glob("model_[0-9]*.pth"):
        checkpoint.unlink()
    return {short: float(found[key]) for key, short in METRICS.items() if key in found} | {
        "iterations": iterations,
        "images_per_second": cfg.SOLVER.IMS_PER_BATCH / step,
        "peak_mb": peak,
        "parameters": _parameters(trainer.model),
    }


def trained(name: str, arm: str, seed: int) -> str:
    """Return the name of a training's job."""
    return f"train_{name}_{_short(arm)}_seed{seed}"


def steps_of(name: str, group: str) -> str:
    return f"steps_{name}_{group}"


def forwards_of(name: str, group: str) -> str:
    return f"forwards_{name}_{group}"


def place_of(folder: Path, name: str) -> Path:
    """Return the folder of a set's files."""
    return folder / "sets" / name


def weights_file(folder: Path, name: str) -> Path:
    return place_of(folder, name) / "simmim.pth"


def _short(arm: str) -> str:
    return "".join(letter for letter in arm.lower() if letter.isalnum())


def _parameters(model: nn.Module) -> int:
    """Return the number of parameters of a model's backbone, without its FPN."""
    backbone: Any = model.backbone
    bottom_up = getattr(backbone, "bottom_up", backbone)
    return sum(parameter.numel() for parameter in bottom_up.parameters())


def _peak_mb(device: str) -> float:
    """Return the peak of the GPU's memory, or of this process's.

    ``ru_maxrss`` would be at least the peak of the parent process.
    """
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else float("nan")


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _quiet() -> None:
    for name in ("detectron2", "fvcore", "swinv2_backbone"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _size(full: bool) -> Size:
    return FULL if full else SMALL


def _config(
    folder: Path, output: str, name: str, arm: str, seed: int, iterations: int, full: bool
) -> CfgNode:
    """Return the recipe of a size for a set, changed by an arm."""
    own, place, size = BY_NAME[name], place_of(folder, name), _size(full)
    chosen = GROUPS[group_of(arm)][arm]
    recipe = size.semantic if own.labels == "semantic" else size.objects
    cfg = load_config(str(CONFIGS / recipe), [*size.changes, "OUTPUT_DIR", output])
    node = cfg.MODEL.SWINV2  # the same model for all sets
    node.EMBED_DIM, node.DEPTHS, node.NUM_HEADS = size.embed_dim, size.depths, size.num_heads
    node.DROP_PATH_RATE, cfg.SEED, cfg.TEST.AUG.ENABLED = 0.0, seed, False
    resize(cfg, scaled(own.side, cfg))
    cfg.SOLVER.MAX_ITER = cfg.SOLVER.CHECKPOINT_PERIOD = iterations
    cfg.SOLVER.WARMUP_ITERS = iterations // 10
    cfg.SOLVER.BASE_LR, cfg.SOLVER.EMA.ENABLED = RATE, False
    if own.labels == "semantic":
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = own.classes
        cfg.DATASETS.CUSTOM.NAMES = str(place / "classes.txt")
    else:
        cfg.MODEL.MASK_ON, cfg.MODEL.ROI_HEADS.NUM_CLASSES = own.labels == "masks", own.classes
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[scaled(side, cfg)] for side in own.anchors]
        cfg.TEST.DETECTIONS_PER_IMAGE = DETECTIONS
        cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = DETECTIONS
    chosen.change(cfg, own)
    if chosen.pretrained:
        cfg.MODEL.WEIGHTS = str(weights_file(folder, name))
    for split, short in (("TRAIN", "train"), ("TEST", "val")):
        node = cfg.DATASETS.CUSTOM[split]
        node.NAME, node.IMAGES = f"{name}_{short}", str(place / short)
        if own.labels == "semantic":
            node.LABELS = str(place / f"{short}_labels")
        else:
            node.JSON = str(place / f"{short}.json")
    return register_custom_datasets(cfg)
