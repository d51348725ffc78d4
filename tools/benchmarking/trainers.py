"""Iterations a second of our trainer against Detectron2's ``DefaultTrainer``, in turns.

Both train the model of one YAML config on its data, each with its own loader.  ``DefaultTrainer``
uses SGD, whatever the config says, and clips each gradient by itself if ours clips them together.
The same config with Detectron2's R50 and, where it is installed, its Swin V1 of the same width and
depths shows what users of these have.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import count
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, TrainerBase
from detectron2.modeling import Backbone
from detectron2.utils.events import EventStorage
from torch import nn

from benchmarking.comparison import progress
from benchmarking.detector import swin_v1, unfit_swin_v1
from benchmarking.report import with_quartiles
from benchmarking.timing import alternate, device_clock, paired, stopwatch
from swinv2_backbone.d2 import Trainer, load_config
from swinv2_backbone.d2.data.datasets.custom import register_custom_datasets

OURS = "ours"
COLUMNS = "| trainer and backbone | ms | iterations/s | time / ours |\n|---|---|---|---|"


def compare(
    config: str, options: Sequence[str], rounds: int, time_limit: float | None, device: str
) -> str:
    """Return a table of medians over ``rounds`` turns of one iteration each.

    Args:
        config: a YAML file.
        options: its overrides, KEY VALUE ...
    """
    logging.disable(logging.INFO)
    # Mixed precision of DefaultTrainer is for GPUs.
    fixed = ["MODEL.DEVICE", device, "SOLVER.AMP.ENABLED", "False"]
    clock, runs = device_clock(device), {}
    with TemporaryDirectory() as output:
        fixed += ["OUTPUT_DIR", output]
        cfg = register_custom_datasets(load_config(config, [*options, *fixed]), ("TRAIN", "TEST"))
        for name, build in _trainers(cfg).items():
            progress(f"  building {name}")
            runs[name] = stopwatch(_iteration(build()), clock)
        seconds = alternate(runs, rounds, warmup=2, time_limit=time_limit)
    lines = [f"{config}, {device}, {torch.get_num_threads()} threads", "", COLUMNS]
    for name, own in seconds.items():
        cells = f"{name} | {median(own) * 1e3:.0f} | {1 / median(own):.2f}"
        lines.append(f"| {cells} | {with_quartiles(paired(own, seconds[OURS]))} |")
    return "\n".join(lines)


def _trainers(cfg: CfgNode) -> dict[str, Callable[[], TrainerBase]]:
    theirs = cfg.clone()
    theirs.defrost()
    theirs.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"  # it has no "full_model"
    found: dict[str, Callable[[], TrainerBase]] = {
        OURS: lambda: Trainer(cfg),
        "DefaultTrainer, SwinV2": lambda: DefaultTrainer(theirs),
        "DefaultTrainer, R50": lambda: DefaultTrainer(_with_r50(theirs)),
    }
    if unfit_swin_v1() is None:
        found["DefaultTrainer, Swin V1 (window 7)"] = lambda: _SwinV1Trainer(theirs)
    return found


def _with_r50(cfg: CfgNode) -> CfgNode:
    found = cfg.clone()
    found.MODEL.BACKBONE.NAME = cfg.MODEL.BACKBONE.NAME.replace("swinv2", "resnet")
    found.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    return found


class _SwinV1Trainer(DefaultTrainer):
    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model: Any = super().build_model(cfg)
        own = model.backbone  # an FPN over the SwinV2, or the SwinV2
        swinv2 = getattr(own, "bottom_up", own).swinv2
        heads = [stage.blocks[0].attn.num_heads for stage in swinv2.layers]
        depths = [len(stage.blocks) for stage in swinv2.layers]
        (width,) = swinv2.patch_embed.norm.normalized_shape
        swin = swin_v1(width, depths, heads).to(cfg.MODEL.DEVICE)
        names = dict(zip(("res2", "res3", "res4", "res5"), ("p0", "p1", "p2", "p3")))
        if own is getattr(own, "bottom_up", own):
            model.backbone = _Renamed(swin, names)
        else:
            own.bottom_up = _Renamed(swin, names)
        return model


class _Renamed(Backbone):
    """Swin V1 with the names of our features."""

    def __init__(self, swin: nn.Module, names: dict[str, str]):
        super().__init__()
        self.swin, self.names = swin, names

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.swin(images)
        return {ours: features[theirs] for ours, theirs in self.names.items()}


def _iteration(trainer: Any) -> Callable[[], None]:
    """Return a call that runs the next iteration of a trainer."""
    numbers, storage = count(), EventStorage(0)
    trainer.model.train()

    def run() -> None:
        with storage:
            trainer.iter = storage.iter = next(numbers)
            trainer.storage = storage
            trainer.run_step()

    return run
