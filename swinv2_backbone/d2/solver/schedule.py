"""Learning rate schedules: Detectron2's own, and polynomial decay."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from detectron2.solver import build_lr_scheduler as build_detectron2_lr_scheduler
from fvcore.common.param_scheduler import PolynomialDecayParamScheduler

POLYNOMIAL = "WarmupPolyLR"  # name of the schedule that Detectron2 does not have


def build_lr_scheduler(
    cfg: CfgNode, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler:
    """Build warm-up, then steps, a cosine or polynomial decay, from ``cfg.SOLVER``."""
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME != POLYNOMIAL:
        return build_detectron2_lr_scheduler(cfg, optimizer)
    schedule = WarmupParamScheduler(
        PolynomialDecayParamScheduler(1.0, solver.POLY_POWER),
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        solver.WARMUP_METHOD,
    )
    return LRMultiplier(optimizer, multiplier=schedule, max_iter=solver.MAX_ITER)
