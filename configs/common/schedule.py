"""What multiplies the learning rate: a linear warm-up, then steps, a polynomial or a cosine."""

from __future__ import annotations

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    PolynomialDecayParamScheduler,
)
from omegaconf import DictConfig


def steps(max_iter: int, milestones: list[int], warmup_iters: int = 1000) -> DictConfig:
    """A tenth after each of two ``milestones``."""
    decay = L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01], milestones=milestones, num_updates=max_iter
    )
    return _warm_up(decay, max_iter, warmup_iters, 0.001)


def polynomial(max_iter: int, power: float = 1.0, warmup_iters: int = 1500) -> DictConfig:
    """(1 - iteration / max_iter) ** power."""
    decay = L(PolynomialDecayParamScheduler)(base_value=1.0, power=power)
    return _warm_up(decay, max_iter, warmup_iters, 1e-6)


def cosine(max_iter: int, warmup_iters: int) -> DictConfig:
    """Half a wave down to 0."""
    decay = L(CosineParamScheduler)(start_value=1.0, end_value=0.0)
    return _warm_up(decay, max_iter, warmup_iters, 0.001)


def _warm_up(decay: DictConfig, max_iter: int, warmup_iters: int, factor: float) -> DictConfig:
    return L(WarmupParamScheduler)(
        scheduler=decay,
        warmup_length=warmup_iters / max_iter,
        warmup_factor=factor,
        warmup_method="linear",
    )
