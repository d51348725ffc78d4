"""The solver: parameter groups and optimizers, learning rate schedules, gradient clipping."""

from swinv2_backbone.d2.solver.clipping import CLIPPING, clip_gradients, gradient_norm
from swinv2_backbone.d2.solver.optimizer import (
    build_optimizer,
    group_options,
    learning_rate_scales,
    parameter_groups,
)
from swinv2_backbone.d2.solver.schedule import build_lr_scheduler

__all__ = [
    "CLIPPING",
    "build_lr_scheduler",
    "build_optimizer",
    "clip_gradients",
    "gradient_norm",
    "group_options",
    "learning_rate_scales",
    "parameter_groups",
]
