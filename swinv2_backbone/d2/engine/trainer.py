"""Training and evaluation by a yacs config: Detectron2's trainer, as SwinV2 needs it."""

from __future__ import annotations

import logging
import os
import weakref
from collections import OrderedDict

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from swinv2_backbone.d2.config.yacs import check_accumulation
from swinv2_backbone.d2.data.loading.from_config import train_loader_from_config
from swinv2_backbone.d2.data.loading.loader import TrainLoader
from swinv2_backbone.d2.data.loading.mapper import DatasetMapper
from swinv2_backbone.d2.data.loading.workers import undisturbed_by_signals
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.engine.ema import WeightAverage
from swinv2_backbone.d2.engine.hooks import Evaluate, PreciseBN, standard_hooks
from swinv2_backbone.d2.engine.parallel import (
    check_sharding,
    parallel_model,
    shard_model,
    shard_optimizer,
)
from swinv2_backbone.d2.engine.step import TrainingStep
from swinv2_backbone.d2.engine.summary import summarise_config
from swinv2_backbone.d2.evaluation.evaluators import build_evaluator, write_results
from swinv2_backbone.d2.evaluation.tta import with_augmentation
from swinv2_backbone.d2.solver.optimizer import build_lr_scheduler, build_optimizer


class Trainer(DefaultTrainer):
    """Detectron2's ``DefaultTrainer`` over :class:`TrainingStep`; a drop-in for train_net scripts.

    Args:
        cfg: a config from :func:`swinv2_backbone.d2.config.yacs.load_config`.
    """

    def __init__(self, cfg: CfgNode):
        TrainerBase.__init__(self)  # DefaultTrainer's own insists on a GPU for mixed precision
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        check_accumulation(cfg)  # which the line above may have changed
        model = self.build_model(cfg)
        sharding, ema, amp = cfg.SOLVER.SHARDING, cfg.SOLVER.EMA, cfg.SOLVER.AMP
        check_sharding(
            sharding,
            averaged=ema.ENABLED,
            float16=amp.ENABLED and amp.DTYPE == "float16",
            key="SOLVER.SHARDING",
            average_key="SOLVER.EMA.ENABLED",
        )
        shard_model(model, sharding)
        optimizer = shard_optimizer(self.build_optimizer(cfg, model), sharding)
        loader = self.build_train_loader(cfg)
        self.average = WeightAverage(model, ema.DECAY) if ema.ENABLED else None
        self.evaluated = self.average.averaged if self.average else model
        model = parallel_model(model, sharding, broadcast_buffers=False)
        self._trainer = build_step(cfg, model, loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(
            model,
            cfg.OUTPUT_DIR,
            partial=cfg.MODEL.SWINV2.PARTIAL_WEIGHTS,
            evaluated=self.evaluated,
            trainer=weakref.proxy(self),
            **({"average": self.average} if self.average else {}),
        )
        self.start_iter, self.max_iter, self.cfg = 0, cfg.SOLVER.MAX_ITER, cfg
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if self.checkpointer.resumed:
            self.start_iter = self.iter + 1  # it is of an iteration that was finished
        if self.average:
            self.average.start()
        if comm.is_main_process():
            summary = summarise_config(
                self.cfg, self.checkpointer.model, self.checkpointer, self.start_iter
            )
            logging.getLogger(__name__).info(f"\n{summary}")

    def train(self) -> OrderedDict | None:
        """Train to the end, or until SIGTERM or Ctrl-C.

        Raises:
            SystemExit: it was stopped, after saving a checkpoint; the code is 128 + the signal.
        """
        with self._trainer.stop_request:
            return super().train()

    def state_dict(self) -> dict:
        """With that of the step (optimizer, gradient scaler), which Detectron2 0.6 forgets."""
        return {**TrainerBase.state_dict(self), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        if "_trainer" not in state_dict:
            raise ValueError(
                "the checkpoint has no state of the optimizer, so that training cannot go on from "
                "it: start from its weights, with MODEL.WEIGHTS and without --resume"
            )
        TrainerBase.load_state_dict(self, state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer):
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
        """Batches of the images that go through the model at once."""
        return train_loader_from_config(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        mapper = DatasetMapper(cfg, is_train=False)
        return undisturbed_by_signals(build_detection_test_loader(cfg, dataset_name, mapper=mapper))

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluator:
        return build_evaluator(dataset_name, output_folder or _inference_folder(cfg))

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators=None) -> dict:
        """Detectron2's, and the results as JSON in ``OUTPUT_DIR/inference/results.json``."""
        results = super().test(cfg, model, evaluators)
        if comm.is_main_process() and evaluators is None:
            write_results(results, _inference_folder(cfg))
        return results

    @classmethod
    def test_with_TTA(cls, cfg: CfgNode, model: nn.Module) -> OrderedDict:
        """Evaluate with test-time augmentation (``cfg.TEST.AUG``)."""
        node, folder = cfg.TEST.AUG, os.path.join(cfg.OUTPUT_DIR, "inference_TTA")
        model = with_augmentation(model, node.MIN_SIZES, node.MAX_SIZE, node.FLIP)
        evaluators = [cls.build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
        cfg = cfg.clone()
        cfg.defrost()
        cfg.INPUT.MIN_SIZE_TEST = 0  # the original sizes, so that pixels are resized once
        results = cls.test(cfg, model, evaluators)
        if comm.is_main_process():
            write_results(results, folder)
        return OrderedDict((f"{key}_TTA", value) for key, value in results.items())

    @classmethod
    def evaluate(cls, cfg: CfgNode, model: nn.Module) -> OrderedDict:
        """Everything that the config asks for: as it is, then with augmentation."""
        results = OrderedDict(cls.test(cfg, model))
        if cfg.TEST.AUG.ENABLED:
            results.update(cls.test_with_TTA(cfg, model))
        return results

    def build_hooks(self) -> list[HookBase]:
        cfg = self.cfg
        found = standard_hooks(
            step=self._trainer,
            output_dir=cfg.OUTPUT_DIR,
            checkpointer=self.checkpointer,
            average=self.average,
            checkpoint_period=cfg.SOLVER.CHECKPOINT_PERIOD,
            evaluate=Evaluate(
                cfg.TEST.EVAL_PERIOD,
                self._evaluate,
                step=self._trainer,
                best_metric=cfg.TEST.BEST_METRIC,
                model=self.evaluated,
                output_dir=cfg.OUTPUT_DIR,
            ),
            # Each process has all hooks but those that write.
            writers=self.build_writers() if comm.is_main_process() else (),
        )
        if cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(self.model):
            found.insert(2, self._precise_bn())
        return found

    def _evaluate(self) -> OrderedDict:
        # Augmentation multiplies the time: only at the end.
        last = self.iter + 1 >= self.max_iter
        evaluate = self.evaluate if last else self.test
        self._last_eval_results = evaluate(self.cfg, self.evaluated)
        return self._last_eval_results

    def _precise_bn(self) -> HookBase:
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0  # it is seldom used
        test, loader = cfg.TEST, self.build_train_loader(cfg)
        return PreciseBN(test.EVAL_PERIOD, self.model, loader, test.PRECISE_BN.NUM_ITER)


def _inference_folder(cfg: CfgNode) -> str:
    return os.path.join(cfg.OUTPUT_DIR, "inference")


def build_step(
    cfg: CfgNode, model: nn.Module, data_loader, optimizer: torch.optim.Optimizer
) -> TrainingStep:
    """The :class:`TrainingStep` that ``cfg.SOLVER`` describes."""
    amp, clip = cfg.SOLVER.AMP, cfg.SOLVER.CLIP_GRADIENTS
    return TrainingStep(
        model,
        data_loader,
        optimizer,
        amp_dtype=getattr(torch, amp.DTYPE) if amp.ENABLED else None,
        clip={"kind": clip.CLIP_TYPE, "value": clip.CLIP_VALUE, "norm_type": clip.NORM_TYPE}
        if clip.ENABLED
        else None,
        accumulate=cfg.SOLVER.ACCUMULATE,
        max_nonfinite=cfg.SOLVER.MAX_NONFINITE_STEPS,
        output_dir=cfg.OUTPUT_DIR,
    )
