"""Training and evaluation by config: Detectron2's trainer with AdamW, AMP anywhere, a summary."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections import OrderedDict

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer, SimpleTrainer, TrainerBase, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
)
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.utils import comm
from torch import nn

from swinv2_backbone.d2.checkpoint import Checkpointer
from swinv2_backbone.d2.optimizer import build_lr_scheduler, build_optimizer
from swinv2_backbone.d2.summary import summarise


class TrainingStep(SimpleTrainer):
    """One optimisation step: mixed precision on any device, clipping by the norm of everything.

    Args:
        model, data_loader, optimizer: as for ``SimpleTrainer``.
        cfg: reads ``SOLVER.AMP``, ``SOLVER.CLIP_GRADIENTS`` and ``MODEL.DEVICE``.
    """

    def __init__(
        self, model: nn.Module, data_loader, optimizer: torch.optim.Optimizer, cfg: CfgNode
    ):
        super().__init__(model, data_loader, optimizer)
        self.amp, self.clip = cfg.SOLVER.AMP, cfg.SOLVER.CLIP_GRADIENTS
        self.device_type = torch.device(cfg.MODEL.DEVICE).type
        # bfloat16 has float32's range; only float16 needs its gradients scaled.
        scaled = self.amp.ENABLED and self.amp.DTYPE == "float16"
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=scaled)

    def run_step(self) -> None:
        assert self.model.training, "the model was changed to eval mode during training"
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        with torch.autocast(self.device_type, getattr(torch, self.amp.DTYPE), self.amp.ENABLED):
            losses = self.model(data)
        if isinstance(losses, torch.Tensor):
            losses = {"total_loss": losses}
        self.optimizer.zero_grad()
        self.grad_scaler.scale(sum(losses.values())).backward()
        self._write_metrics(losses, data_time)  # raises if a loss is not finite
        self.grad_scaler.unscale_(self.optimizer)
        self._clip_gradients()
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _clip_gradients(self) -> None:
        if not self.clip.ENABLED:
            return
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.clip.CLIP_TYPE == "value":
            nn.utils.clip_grad_value_(parameters, self.clip.CLIP_VALUE)
            return
        together = (
            [parameters] if self.clip.CLIP_TYPE == "full_model" else [[p] for p in parameters]
        )
        for some in together:
            nn.utils.clip_grad_norm_(some, self.clip.CLIP_VALUE, self.clip.NORM_TYPE)

    def state_dict(self) -> dict:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        if state_dict.get("grad_scaler"):  # empty after a run that needed no scaling
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


class Trainer(DefaultTrainer):
    """Detectron2's ``DefaultTrainer`` over :class:`TrainingStep`; a drop-in for train_net scripts.

    Args:
        cfg: a config from :func:`swinv2_backbone.d2.config.load_config`.
    """

    def __init__(self, cfg: CfgNode):
        TrainerBase.__init__(self)  # DefaultTrainer's own insists on a GPU for mixed precision
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        device_ids = None if cfg.MODEL.DEVICE == "cpu" else [comm.get_local_rank()]
        model = create_ddp_model(model, broadcast_buffers=False, device_ids=device_ids)
        self._trainer = TrainingStep(model, loader, optimizer, cfg)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(
            model,
            cfg.OUTPUT_DIR,
            partial=cfg.MODEL.SWINV2.PARTIAL_WEIGHTS,
            trainer=weakref.proxy(self),
        )
        self.start_iter, self.max_iter, self.cfg = 0, cfg.SOLVER.MAX_ITER, cfg
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        super().resume_or_load(resume)
        if comm.is_main_process():
            summary = summarise(self.cfg, self.model, self.checkpointer.report, self.start_iter)
            logging.getLogger(__name__).info(f"\n{summary}")

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer):
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluator:
        return build_evaluator(
            dataset_name, output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
        )

    @classmethod
    def test_with_TTA(cls, cfg: CfgNode, model: nn.Module) -> OrderedDict:
        """Evaluate with Detectron2's test-time augmentation (``cfg.TEST.AUG``; R-CNNs only)."""
        model = GeneralizedRCNNWithTTA(cfg, model)
        folder = os.path.join(cfg.OUTPUT_DIR, "inference_TTA")
        evaluators = [cls.build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
        results = cls.test(cfg, model, evaluators)
        return OrderedDict((f"{key}_TTA", value) for key, value in results.items())

    def build_hooks(self) -> list[hooks.HookBase]:
        found = super().build_hooks()
        if self.cfg.TEST.AUG.ENABLED:
            found.append(hooks.EvalHook(0, lambda: self.test_with_TTA(self.cfg, self.model)))
        return found


def build_evaluator(dataset_name: str, output_folder: str) -> DatasetEvaluator:
    """What Detectron2's benchmarks use for the dataset's kind (its ``evaluator_type``)."""
    kind = MetadataCatalog.get(dataset_name).evaluator_type
    whole = {
        "cityscapes_instance": CityscapesInstanceEvaluator,
        "cityscapes_sem_seg": CityscapesSemSegEvaluator,
        "pascal_voc": PascalVOCDetectionEvaluator,
    }
    if kind in whole:
        return whole[kind](dataset_name)
    evaluators = []
    if kind in ("sem_seg", "coco_panoptic_seg"):
        evaluators.append(SemSegEvaluator(dataset_name, output_dir=output_folder))
    if kind in ("coco", "coco_panoptic_seg"):
        # The reference implementation of pycocotools, not Detectron2's compiled one.
        evaluators.append(
            COCOEvaluator(dataset_name, output_dir=output_folder, use_fast_impl=False)
        )
    if kind == "coco_panoptic_seg":
        evaluators.append(COCOPanopticEvaluator(dataset_name, output_folder))
    if kind == "lvis":
        evaluators.append(LVISEvaluator(dataset_name, output_dir=output_folder))
    if not evaluators:
        raise ValueError(f"dataset {dataset_name!r} has the unknown evaluator_type {kind!r}")
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)
