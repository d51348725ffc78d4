"""Training and evaluation by a LazyConfig; what ``trainer.py`` is for a yacs config."""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import instantiate
from detectron2.engine import default_writers, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from swinv2_backbone.checkpoints.fetch import check_source
from swinv2_backbone.d2.config.lazy import (
    check_class_counts,
    target_name,
    test_datasets,
    train_datasets,
)
from swinv2_backbone.d2.data.datasets.selected import check_datasets
from swinv2_backbone.d2.data.loading.workers import undisturbed_by_signals
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.engine.ema import WeightAverage
from swinv2_backbone.d2.engine.hooks import Evaluate, standard_hooks
from swinv2_backbone.d2.engine.parallel import (
    check_sharding,
    parallel_model,
    shard_model,
    shard_optimizer,
)
from swinv2_backbone.d2.engine.rehearsal import ITERATIONS, first_images
from swinv2_backbone.d2.engine.step import TrainingStep
from swinv2_backbone.d2.engine.summary import Training, summarise
from swinv2_backbone.d2.evaluation.evaluators import check_evaluation, write_results
from swinv2_backbone.d2.evaluation.tta import with_augmentation


def prepare(cfg: DictConfig, eval_only: bool, resume: bool, fast_dev_run: bool = False) -> None:
    """Register own datasets and check everything that can be known before work starts.

    For a rehearsal, ``train.output_dir`` is its folder by now.

    Raises:
        ValueError: something could not work; it says what, and what to do.
    """
    register_datasets(cfg, ("test",) if eval_only else ("train", "test"))
    if eval_only and not cfg.train.init_checkpoint and not resume:
        raise ValueError("nothing to evaluate: give train.init_checkpoint=output/model_final.pth")
    tested = test_datasets(cfg)
    if len(tested) > 1:
        raise ValueError(
            f"a LazyConfig tests on one dataset, got {', '.join(tested)} "
            "(dataloader.test.dataset.names)"
        )
    if fast_dev_run and resume:
        raise ValueError("--fast-dev-run always starts anew: leave out --resume")
    used = [*tested, *([] if eval_only else train_datasets(cfg))]
    check_datasets(used)
    check_class_counts(cfg, used)
    if target_name(cfg.dataloader.evaluator) == "build_evaluator":  # else it is the user's own
        best = "" if eval_only else cfg.train.best_metric
        check_evaluation(tested, best, masks="mask_head" in cfg.model.get("roi_heads", {}))
    check_source(cfg.train.init_checkpoint)
    if fast_dev_run:
        _shorten(cfg)


def register_datasets(cfg: DictConfig, splits: Sequence[str]) -> None:
    """Call what ``datasets`` says of these splits.

    Raises:
        ValueError: a dataset cannot be used, or there is another split.
    """
    own = cfg.get("datasets") or {}
    if unknown := set(own) - {"train", "test"}:
        raise ValueError(f"datasets.{unknown.pop()} is no key: there are train and test")
    for split in splits:
        if split in own:
            instantiate(own[split])


def build_model(cfg: DictConfig) -> nn.Module:
    return instantiate(cfg.model).to(cfg.train.device)


def evaluate(cfg: DictConfig, model: nn.Module, augmented: bool) -> OrderedDict:
    """Evaluate on ``dataloader.test``, and if ``augmented`` also as ``train.test_aug`` says.

    Without a dataset (``dataloader.test.dataset.names=[]``) there is nothing to evaluate.

    The results are also written as JSON, to ``inference`` (and ``inference_TTA``) of output_dir.
    """
    if not test_datasets(cfg):
        return OrderedDict()
    results = _evaluate(cfg.dataloader, model, Path(cfg.train.output_dir, "inference"))
    if augmented and cfg.train.test_aug.enabled:
        node, loader = cfg.train.test_aug, copy.deepcopy(cfg.dataloader)
        loader.test.mapper.augmentations = []  # the original sizes, so that pixels are resized once
        model = with_augmentation(model, list(node.min_sizes), node.max_size, node.flip)
        folder = Path(cfg.train.output_dir, "inference_TTA")
        found = _evaluate(loader, model, folder)
        results.update((f"{key}_TTA", value) for key, value in found.items())
    return results


def load_for_evaluation(cfg: DictConfig, resume: bool) -> nn.Module:
    model = build_model(cfg)
    checkpointer = Checkpointer(model, cfg.train.output_dir)
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    checkpointer.require_complete()
    _log_summary(cfg, checkpointer, None)
    return model


class LazyTrainer:
    """A training as a LazyConfig describes it.

    Args:
        cfg: from :func:`load_lazy_config`, after :func:`prepare`.
        resume: go on from the last checkpoint in ``train.output_dir``.
    """

    def __init__(self, cfg: DictConfig, resume: bool = False):
        self.cfg, train = cfg, cfg.train
        model = build_model(cfg)
        logging.getLogger(__name__).info(f"Model:\n{model}")
        sharding = train.sharding
        check_sharding(
            sharding,
            averaged=train.ema.enabled,
            float16=train.amp.enabled and train.amp.dtype == "float16",
            key="train.sharding",
            average_key="train.ema.enabled",
        )
        shard_model(model, sharding)
        average = WeightAverage(model, train.ema.decay) if train.ema.enabled else None
        self.evaluated = average.averaged if average else model
        cfg.optimizer.params.model = model
        optimizer = shard_optimizer(instantiate(cfg.optimizer), sharding)
        cfg.optimizer.params.model = None
        self.step = TrainingStep(
            parallel_model(model, sharding, **train.ddp),
            _train_loader(cfg),
            optimizer,
            amp_dtype=getattr(torch, train.amp.dtype) if train.amp.enabled else None,
            clip=train.clip and dict(train.clip),
            accumulate=train.accumulate,
            max_nonfinite=train.max_nonfinite_steps,
            output_dir=train.output_dir,
        )
        self.checkpointer = Checkpointer(
            model,
            train.output_dir,
            partial=train.partial_weights,
            evaluated=self.evaluated,
            trainer=self.step,
            **({"average": average} if average else {}),
        )
        self.step.register_hooks(self._hooks(average))
        self.checkpointer.resume_or_load(train.init_checkpoint, resume=resume)
        if average:
            average.start()
        self.start_iter = self.step.iter + 1 if self.checkpointer.resumed else 0
        _log_summary(cfg, self.checkpointer, self.start_iter)
        self.results = OrderedDict()

    def train(self) -> OrderedDict:
        """Train to the end, or until SIGTERM or Ctrl-C; returns the last evaluation.

        Raises:
            SystemExit: it was stopped, after saving a checkpoint; the code is 128 + the signal.
        """
        with self.step.stop_request:
            self.step.train(self.start_iter, self.cfg.train.max_iter)
        return self.results

    def _hooks(self, average: WeightAverage | None) -> list[hooks.HookBase]:
        train, main = self.cfg.train, comm.is_main_process()
        return standard_hooks(
            step=self.step,
            output_dir=train.output_dir,
            checkpointer=self.checkpointer,
            average=average,
            checkpoint_period=train.checkpointer.period,
            max_to_keep=train.checkpointer.max_to_keep,
            evaluate=Evaluate(
                train.eval_period,
                self._evaluate,
                step=self.step,
                best_metric=train.best_metric,
                model=self.evaluated,
                output_dir=train.output_dir,
            ),
            writers=default_writers(train.output_dir, train.max_iter) if main else (),
            log_period=train.log_period,
            lr_scheduler=hooks.LRScheduler(scheduler=instantiate(self.cfg.lr_multiplier)),
        )

    def _evaluate(self) -> OrderedDict:
        last = self.step.iter + 1 >= self.step.max_iter
        self.results = evaluate(self.cfg, self.evaluated, augmented=last)
        return self.results


def _evaluate(dataloader: DictConfig, model: nn.Module, folder: Path) -> OrderedDict:
    evaluator = copy.deepcopy(dataloader.evaluator)
    if "output_folder" in evaluator:
        evaluator.output_folder = str(folder)
    loader = undisturbed_by_signals(instantiate(dataloader.test))
    results = inference_on_dataset(model, loader, instantiate(evaluator))
    if comm.is_main_process():
        print_csv_format(results)
        write_results(results, folder)
    return OrderedDict(results)


def _train_loader(cfg: DictConfig):
    """Batches of the images that go through the model at once."""
    loader = copy.deepcopy(cfg.dataloader.train)
    loader.total_batch_size //= cfg.train.accumulate
    return instantiate(loader)


def _shorten(cfg: DictConfig) -> None:
    """See :func:`swinv2_backbone.d2.engine.rehearsal.shorten`."""
    train = cfg.train
    train.max_iter, train.log_period = ITERATIONS, 1
    train.eval_period = train.checkpointer.period = ITERATIONS // 2
    names = [first_images(name, train.output_dir) for name in test_datasets(cfg)]
    cfg.dataloader.test.dataset.names = names
    if names and "dataset_name" in cfg.dataloader.evaluator:
        cfg.dataloader.evaluator.dataset_name = names[0]


def _log_summary(cfg: DictConfig, checkpointer: Checkpointer, start_iter: int | None) -> None:
    if not comm.is_main_process():
        return
    train, training = cfg.train, None
    if start_iter is not None:
        training = Training(
            datasets=train_datasets(cfg),
            start_iter=start_iter,
            max_iter=train.max_iter,
            batch=cfg.dataloader.train.total_batch_size,
            accumulate=train.accumulate,
            optimizer=target_name(cfg.optimizer),
            lr=cfg.optimizer.lr,
            schedule=target_name(cfg.lr_multiplier),
            precision=f"{train.amp.dtype} (mixed)" if train.amp.enabled else "float32",
            ema=train.ema.decay if train.ema.enabled else None,
        )
    summary = summarise(
        checkpointer.model,
        checkpointer,
        tested=test_datasets(cfg),
        resolution=_resolution(cfg),
        output=train.output_dir,
        training=training,
    )
    logging.getLogger(__name__).info(f"\n{summary}")


def _resolution(cfg: DictConfig) -> str:
    augmentations = cfg.dataloader.test.mapper.augmentations
    return ", ".join(
        " ".join(f"{k}={v}" for k, v in one.items() if k != "_target_") for one in augmentations
    )
