"""Training and evaluation, built from a plan of either config dialect."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase, TrainerBase, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from swinv2_backbone.d2.config.plan import Factories, TrainingPlan
from swinv2_backbone.d2.config.rules import validate_processes
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.engine.early_end import EarlyStopping, TimeLimit
from swinv2_backbone.d2.engine.ema import WeightAverage
from swinv2_backbone.d2.engine.evaluate import Evaluate, PreciseBN
from swinv2_backbone.d2.engine.hooks import standard_hooks
from swinv2_backbone.d2.engine.metrics import run_writers
from swinv2_backbone.d2.engine.parallel import parallel_model, shard_model, shard_optimizer
from swinv2_backbone.d2.engine.run_options import RunOptions, update_rates
from swinv2_backbone.d2.engine.samples import draw_samples
from swinv2_backbone.d2.engine.signals import TrainingEnded
from swinv2_backbone.d2.engine.step import TrainingStep
from swinv2_backbone.d2.engine.summary import log_summary
from swinv2_backbone.d2.engine.tracking import Tracking
from swinv2_backbone.d2.evaluation.results import write_results
from swinv2_backbone.d2.evaluation.titled import Titled
from swinv2_backbone.d2.evaluation.tta import with_augmentation

logger = logging.getLogger(__name__)
INFERENCE = "inference"  # folder of results, in the output folder
AUGMENTED = "_TTA"  # suffix of the results with test-time augmentation


class Training:
    """A training run described by a plan, ready to start or to resume.

    Args:
        plan: validated plan, with its factories.
        loop: trainer that owns the hooks and the state; default: the step itself.
        evaluate: function (model, augmented) -> results; default: :func:`evaluate_plan`.

    Attributes:
        model: model that is trained, without its distributed wrapper.
        average: average of its weights, or None.
        evaluated: model that is evaluated: the average, or the model.
        step, checkpointer: the training step and the checkpointer.
        results: results of the last evaluation.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        loop: TrainerBase | None = None,
        evaluate: Callable[[nn.Module, bool], dict] | None = None,
    ):
        validate_processes(plan)
        self.plan = plan
        build, sharding = factories_of(plan), plan.step.sharding
        self.model = build.model()
        shard_model(self.model, sharding)
        optimizer = shard_optimizer(build.optimizer(self.model), sharding)
        self.average = WeightAverage(self.model, plan.step.ema_decay) if plan.step.ema else None
        self.evaluated = self.average.averaged if self.average else self.model
        self.step = _build_step(plan, self.model, optimizer)
        self.loop = self.step if loop is None else loop
        self.scheduler = build.schedule(optimizer)
        self.options = RunOptions(plan)
        # A checkpoint is first checked against the options, then restored.
        parts: dict[str, Any] = {"options": self.options, "trainer": self.loop}
        parts |= {"average": self.average} if self.average else {}
        self.checkpointer = Checkpointer(
            self.model,
            plan.run.output_dir,
            partial=plan.run.partial_weights,
            stem=plan.run.stem,
            evaluated=self.evaluated,
            **parts,
        )
        self._evaluate = evaluate or partial(evaluate_plan, plan)
        self.results: dict = OrderedDict()
        self.start_iter = 0
        if loop is None:
            self.step.register_hooks(self.hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """Resume from the last checkpoint in the output folder, or load the initial weights."""
        self.checkpointer.resume_or_load(self.plan.run.weights, resume=resume)
        changes = []
        if self.checkpointer.resumed:
            self.start_iter = self.loop.iter + 1  # the checkpoint was saved after an iteration
            update_rates(self.scheduler, self.step.optimizer)
            changes = self.options.changes(self.step.changes)
        if self.average:
            self.average.start()
        log_summary(self.plan, self.checkpointer, self.start_iter, changes)

    def train(self) -> dict:
        """Train to the end, or until SIGTERM or Ctrl-C; return the last evaluation.

        Raises:
            SystemExit: a signal stopped training, after a checkpoint; the code is 128 + the signal.
        """
        self.run(lambda: self.step.train(self.start_iter, self.plan.schedule.max_iter))
        return self.results

    def run(self, loop: Callable[[], Any]) -> None:
        """Run the training loop, which a signal, a time limit or early stopping may end."""
        if self.plan.data.samples_picture and comm.is_main_process():
            draw_samples(self.plan, self.step.data_loader)
        with self.step.stop_request:
            try:
                loop()
            except TrainingEnded as end:
                logger.info(str(end))

    def hooks(self, writers: list | None = None) -> list[HookBase]:
        """Return the training hooks in the order in which they depend on each other."""
        plan = self.plan
        if writers is None:
            writers = run_writers(plan.run.output_dir, plan.schedule.max_iter)
        tracking = self._tracking()
        evaluate = Evaluate(
            plan.evaluation.period,
            self.evaluate,
            step=self.step,
            best_metric=plan.evaluation.best_metric,
            model=self.evaluated,
            output_dir=plan.run.output_dir,
        )
        found = standard_hooks(
            step=self.step,
            checkpointer=self.checkpointer,
            average=self.average,
            checkpoint_period=plan.run.checkpoint_period,
            max_to_keep=plan.run.checkpoints_kept,
            evaluate=evaluate,
            writers=[*tracking, *writers] if comm.is_main_process() else (),
            output_dir=plan.run.output_dir,
            log_period=plan.run.log_period,
            lr_scheduler=hooks.LRScheduler(self.step.optimizer, self.scheduler),
            early_ends=self._early_ends(evaluate),
            augmented=plan.evaluation.augmented,
        )
        if plan.evaluation.precise_bn and get_bn_modules(self.model):
            found.insert(2, self._precise_bn())
        return [*tracking, *found]

    def evaluate(self) -> dict:
        """Evaluate, with test-time augmentation only at the end, because it multiplies the time."""
        last = self.loop.iter + 1 >= self.loop.max_iter or bool(self.step.ending)
        self.results = self._evaluate(self.evaluated, last)
        return self.results

    def _early_ends(self, evaluate: Evaluate) -> list[HookBase]:
        plan, found = self.plan, []
        if metric := plan.evaluation.early_stopping_metric:
            patience, folder = plan.evaluation.early_stopping_patience, plan.run.output_dir
            found.append(EarlyStopping(metric, patience, self.step, evaluate, folder))
        if plan.run.time_limit is not None:
            found.append(TimeLimit(60 * plan.run.time_limit, self.step))
        return found

    def _tracking(self) -> list[Tracking]:
        if not (self.plan.run.trackers and comm.is_main_process()):
            return []
        resumed = lambda: bool(self.checkpointer.resumed)  # noqa: E731
        return [Tracking(self.plan, resumed, lambda: bool(self.step.ending))]

    def _precise_bn(self) -> HookBase:
        plan = self.plan.replaced({"data.num_workers": 0})  # used rarely
        loader, node = factories_of(plan).train_loader(), plan.evaluation
        return PreciseBN(node.period, self.model, loader, node.precise_bn_iters)


def factories_of(plan: TrainingPlan) -> Factories:
    assert plan.factories is not None, "the plan was translated without factories"
    return plan.factories


def _build_step(
    plan: TrainingPlan, model: nn.Module, optimizer: torch.optim.Optimizer
) -> TrainingStep:
    node, precision, clip = plan.step, plan.precision, plan.clipping
    ddp = {
        "broadcast_buffers": node.broadcast_buffers,
        "find_unused_parameters": node.find_unused_parameters,
    }
    return TrainingStep(
        parallel_model(model, node.sharding, **ddp),
        factories_of(plan).train_loader(),
        optimizer,
        amp_dtype=getattr(torch, precision.amp_dtype) if precision.amp else None,
        clip={"kind": clip.kind, "value": clip.value, "norm_type": clip.norm_type}
        if clip.enabled
        else None,
        accumulate=node.accumulate,
        max_nonfinite=node.max_nonfinite,
        output_dir=plan.run.output_dir,
    )


def load_for_evaluation(plan: TrainingPlan, resume: bool) -> nn.Module:
    """Build the model with all of its weights, from a file or (``resume``) the last checkpoint.

    Raises:
        ValueError: the weights do not cover the whole model.
    """
    model = factories_of(plan).model()
    checkpointer = Checkpointer(model, plan.run.output_dir, stem=plan.run.stem)
    checkpointer.resume_or_load(plan.run.weights, resume=resume)
    checkpointer.require_complete()
    log_summary(plan, checkpointer, None)
    return model


def evaluate_plan(plan: TrainingPlan, model: nn.Module, augmented: bool = True) -> dict:
    """Evaluate on the test datasets, then with test-time augmentation if the plan asks for it.

    Without a test dataset, the results are empty.

    Args:
        augmented: False skips test-time augmentation.
    """
    results = evaluate_once(plan, model)
    if augmented and plan.evaluation.augmented:
        results.update(evaluate_augmented(plan, model))
    return results


def evaluate_augmented(plan: TrainingPlan, model: nn.Module) -> dict:
    """Evaluate with test-time augmentation; the names of its results end in "_TTA"."""
    node = plan.evaluation
    sizes = list(node.augmented_min_sizes)
    model = with_augmentation(model, sizes, node.augmented_max_size, node.augmented_flip)
    how = f"shorter sides {', '.join(map(str, sizes))}{', also flipped' * node.augmented_flip}"
    return evaluate_once(plan, model, AUGMENTED, f" with test-time augmentation ({how})")


def evaluate_once(plan: TrainingPlan, model: nn.Module, suffix: str = "", how: str = "") -> dict:
    """Evaluate on each test dataset; for several, the results are nested by dataset name.

    The results are also written as JSON to ``inference`` in the output folder.

    Args:
        suffix: ending of the folder's name and of the names of the results. With one, images are
            loaded at their own size, so that the augmentation resizes them only once.
        how: rest of the title above the results.
    """
    results: dict = OrderedDict()
    target = Path(plan.run.output_dir, INFERENCE + suffix)
    for name in plan.data.test:
        loader = factories_of(plan).test_loader(name, bool(suffix))
        evaluator = Titled(f"{name}{how}", factories_of(plan).evaluator(name, target))
        found = inference_on_dataset(model, loader, evaluator) or {}
        if comm.is_main_process():
            print_csv_format({f"{task}{suffix}": value for task, value in found.items()})
        results[name] = found
    if len(plan.data.test) == 1:
        results = results[plan.data.test[0]]
    results = OrderedDict((f"{key}{suffix}", value) for key, value in results.items())
    if comm.is_main_process() and plan.data.test:
        write_results(results, target)
    return results
