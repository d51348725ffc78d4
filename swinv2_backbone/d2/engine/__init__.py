"""Training and evaluation built from a plan: steps, hooks, checkpoints, processes, signals."""

from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.engine.launch import launch
from swinv2_backbone.d2.engine.prepare import prepare
from swinv2_backbone.d2.engine.step import TrainingStep
from swinv2_backbone.d2.engine.trainer import Trainer, build_trainer, load_plan
from swinv2_backbone.d2.engine.training import Training, evaluate_plan, load_for_evaluation

__all__ = [
    "Checkpointer",
    "Trainer",
    "Training",
    "TrainingStep",
    "build_trainer",
    "evaluate_plan",
    "launch",
    "load_for_evaluation",
    "load_plan",
    "prepare",
]
