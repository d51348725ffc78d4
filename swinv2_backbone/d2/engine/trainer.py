"""Detectron2's ``DefaultTrainer`` over a :class:`Training`: a facade that users may subclass."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from torch import nn

from swinv2_backbone.d2.config.lazy import load_lazy_config, plan_from_lazy
from swinv2_backbone.d2.config.options import Dialect
from swinv2_backbone.d2.config.plan import Factories, TrainingPlan
from swinv2_backbone.d2.config.rules import validate
from swinv2_backbone.d2.config.yacs import load_config, plan_from_yacs
from swinv2_backbone.d2.data.loading.from_config import train_loader_from_config
from swinv2_backbone.d2.data.loading.loader import TrainLoader
from swinv2_backbone.d2.data.loading.mapper import DatasetMapper
from swinv2_backbone.d2.data.loading.workers import undisturbed_by_signals
from swinv2_backbone.d2.engine.metrics import run_writers
from swinv2_backbone.d2.engine.training import (
    INFERENCE,
    Training,
    evaluate_augmented,
    evaluate_once,
)
from swinv2_backbone.d2.evaluation.evaluators import build_evaluator
from swinv2_backbone.d2.modeling.build import adapted, build_model
from swinv2_backbone.d2.solver.optimizer import build_optimizer
from swinv2_backbone.d2.solver.schedule import build_lr_scheduler
from swinv2_backbone.recipes import is_lazy


class Trainer(DefaultTrainer):
    """A drop-in replacement for ``DefaultTrainer``, whose ``build_*`` methods may be overridden.

    Args:
        cfg: config with the keys of :func:`swinv2_backbone.d2.load_config`; it is not changed.

    Attributes:
        training: the :class:`Training` that the config describes.

    Raises:
        ConfigError: the config is invalid; a ValueError that lists all errors.
    """

    def __init__(self, cfg: CfgNode):
        TrainerBase.__init__(self)  # not DefaultTrainer's, which requires a GPU for mixed precision
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        own = weakref.proxy(self)
        plan = validate(plan_from_yacs(cfg, lambda config: _factories(own, config)))
        self.training = training = Training(plan, loop=own, evaluate=self._evaluate)
        self._trainer, self.scheduler = training.step, training.scheduler
        self.checkpointer, self.average = training.checkpointer, training.average
        self.evaluated = training.evaluated
        self.start_iter, self.max_iter, self.cfg = 0, plan.schedule.max_iter, cfg
        self.register_hooks(self.build_hooks())

    @classmethod
    def plan_of(cls, cfg: CfgNode) -> TrainingPlan:
        """Translate a config to a plan whose parts are built by the ``build_*`` methods."""
        return plan_from_yacs(cfg, lambda config: _factories(cls, config))

    def resume_or_load(self, resume: bool = True) -> None:
        self.training.resume_or_load(resume)
        self.start_iter = self.training.start_iter

    def train(self) -> dict | None:
        """Train to the end, or until SIGTERM or Ctrl-C.

        Raises:
            SystemExit: a signal stopped training, after a checkpoint; the code is 128 + the signal.
        """
        self.training.run(super().train)
        return getattr(self, "_last_eval_results", None)

    def state_dict(self) -> dict:
        """Add the state of the step (optimizer, gradient scaler), which Detectron2 0.6 omits."""
        return {**TrainerBase.state_dict(self), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        if "_trainer" not in state_dict:
            raise ValueError(
                "the checkpoint has no optimizer state, so training cannot resume from it: start "
                "from its weights, with MODEL.WEIGHTS and without --resume"
            )
        TrainerBase.load_state_dict(self, state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    def build_hooks(self) -> list[HookBase]:
        return self.training.hooks(self.build_writers() if comm.is_main_process() else [])

    def build_writers(self) -> list[EventWriter]:
        return run_writers(self.cfg.OUTPUT_DIR, self.max_iter)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> Any:
        return adapted(super().build_model(cfg))

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
        """Build the loader; one batch has the images of one forward."""
        return train_loader_from_config(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        mapper = DatasetMapper(cfg, is_train=False)
        return undisturbed_by_signals(build_detection_test_loader(cfg, dataset_name, mapper=mapper))

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluator:
        folder = output_folder or os.path.join(cfg.OUTPUT_DIR, INFERENCE)
        return build_evaluator(dataset_name, folder, cfg.TEST.DETECTIONS_PER_IMAGE)

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators: Any = None) -> dict:
        """Evaluate once, and also write the results to ``OUTPUT_DIR/inference/results.json``."""
        if evaluators is not None:
            return super().test(cfg, model, evaluators)
        return evaluate_once(cls.plan_of(cfg), model)

    @classmethod
    def test_with_TTA(cls, cfg: CfgNode, model: nn.Module) -> dict:
        """Evaluate with test-time augmentation (``cfg.TEST.AUG``)."""
        return evaluate_augmented(cls.plan_of(cfg), model)

    @classmethod
    def evaluate(cls, cfg: CfgNode, model: nn.Module) -> dict:
        """Evaluate without augmentation, then with it if the config asks for it."""
        results = cls.test(cfg, model)
        if cfg.TEST.AUG.ENABLED:
            results.update(cls.test_with_TTA(cfg, model))
        return results

    def _evaluate(self, model: nn.Module, last: bool) -> dict:
        self._last_eval_results = (self.evaluate if last else self.test)(self.cfg, model)
        return self._last_eval_results


def _factories(trainer: Any, cfg: CfgNode) -> Factories:
    """Return builders that call the ``build_*`` methods of a Trainer or of its class."""

    def test_loader(name: str, own_size: bool) -> Any:
        node = cfg.clone()
        if own_size:
            node.defrost()
            node.INPUT.MIN_SIZE_TEST = 0
        return trainer.build_test_loader(node, name)

    def evaluator(name: str, folder: Path) -> Any:
        # Overrides of build_evaluator often take no folder.
        other = [] if folder == Path(cfg.OUTPUT_DIR, INFERENCE) else [str(folder)]
        return trainer.build_evaluator(cfg, name, *other)

    return Factories(
        model=lambda: build_model(cfg, trainer.build_model),
        optimizer=lambda model: trainer.build_optimizer(cfg, model),
        schedule=lambda optimizer: trainer.build_lr_scheduler(cfg, optimizer),
        train_loader=lambda: trainer.build_train_loader(cfg),
        test_loader=test_loader,
        evaluator=evaluator,
    )


def load_plan(
    config_file: str, opts: Sequence[str] = (), imports: Sequence[str] = ()
) -> TrainingPlan:
    """Load a config of either dialect, determined by its suffix, as a validated plan.

    Args:
        config_file: a YAML file, or a LazyConfig: a .py file, or the config.yaml of its training.
        opts: overrides, ``KEY VALUE ...`` or ``key=value ...``.
        imports: other projects' code, "package.module:function"; see :func:`load_config`.

    Raises:
        ConfigError: the config is invalid; a ValueError that lists all errors.
    """
    if is_lazy(config_file):
        return plan_from_lazy(load_lazy_config(config_file, opts, imports))
    return Trainer.plan_of(load_config(config_file, opts, imports))


def build_trainer(plan: TrainingPlan) -> Trainer | Training:
    """Build the trainer of a plan; it has ``resume_or_load(resume)`` and ``train()``."""
    return Trainer(plan.config) if plan.dialect is Dialect.YACS else Training(plan)
