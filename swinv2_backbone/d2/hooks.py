"""What happens around a step of training: averaged weights, evaluation, keeping the best."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from detectron2.engine import HookBase, hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.d2.checkpoint import Checkpointer, save_weights

BEST = "model_best"


class WeightAverage:
    """The exponential moving average of a model's weights and buffers.

    The weight of the past rises to ``decay`` as (1 + n) / (10 + n) over the steps n, so that a
    short training forgets its random start too.

    A checkpoint holds the average as its ``model``, since that is what was evaluated; the weights
    that are being trained are part of this object's state.

    Args:
        model: the one that is trained, without its distributed wrapper.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay = model, decay
        self._averaged = AveragedModel(model, multi_avg_fn=self._step, use_buffers=True)

    @property
    def averaged(self) -> nn.Module:
        return self._averaged.module

    def start(self) -> None:
        """Called when the model has been given its weights: follow it from there.

        An average that was resumed keeps its own weights.
        """
        if self._averaged.n_averaged == 0:
            self.averaged.load_state_dict(self.model.state_dict())
        # What normalises the position bias comes with the weights, but is none of them.
        for trained, averaged in zip(_backbones(self.model), _backbones(self.averaged)):
            averaged.set_pretrained_window_sizes(trained.pretrained_window_sizes)

    def update(self) -> None:
        self._averaged.update_parameters(self.model)

    @torch.no_grad()
    def _step(self, average: list[Tensor], current: list[Tensor], n_averaged: Tensor) -> None:
        """Called with tensors of one dtype.  Counters (of batch norm) are copied."""
        n = n_averaged.item()
        decay = min(self.decay, (1 + n) / (10 + n))
        if average[0].is_floating_point():
            torch._foreach_lerp_(average, current, 1 - decay)
        else:
            torch._foreach_copy_(average, current)

    def state_dict(self) -> dict:
        return {"n_averaged": self._averaged.n_averaged, "trained": self.model.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Called when ``model`` has just been given the weights of the checkpoint: the average."""
        self.averaged.load_state_dict(self.model.state_dict())
        self._averaged.n_averaged.copy_(state["n_averaged"])
        self.model.load_state_dict(state["trained"])


def _backbones(model: nn.Module) -> list[SwinV2]:
    return [part for part in model.modules() if isinstance(part, SwinV2)]


class AverageWeights(HookBase):
    """Updates a :class:`WeightAverage` after each step; comes before what saves or evaluates."""

    def __init__(self, average: WeightAverage):
        self.average = average

    def after_step(self) -> None:
        self.average.update()


class Evaluate(hooks.EvalHook):
    """Detectron2's ``EvalHook``, which also keeps the weights that were best so far.

    Best is the highest ``best_metric``.  ``model_best.pth`` holds the weights alone, and
    ``model_best.json`` what they reached, so that a resumed training does not forget it.
    (Detectron2's ``BestCheckpointer`` does, and makes the best the one to resume from.)

    Args:
        period: in iterations; 0: only after the last.
        evaluate: returns the results, as ``inference_on_dataset`` nests them.
        best_metric: such as "bbox/AP"; "" keeps nothing.
        model: what ``evaluate`` evaluates.
    """

    def __init__(
        self,
        period: int,
        evaluate: Callable[[], dict],
        *,
        best_metric: str,
        model: nn.Module,
        output_dir: str | os.PathLike,
    ):
        super().__init__(period, evaluate)
        self.best_metric, self.model = best_metric, model
        self.record = Path(output_dir, f"{BEST}.json")
        self.best = -math.inf

    def before_train(self) -> None:
        if not (self.best_metric and comm.is_main_process()):
            return
        if self.trainer.start_iter == 0:  # what an earlier training reached does not count
            self.record.unlink(missing_ok=True)
        elif self.record.is_file():
            record = json.loads(self.record.read_text())
            if record["metric"] == self.best_metric:
                self.best = record["value"]

    def _do_eval(self) -> None:
        evaluate, results = self._func, {}
        self._func = lambda: results.update(evaluate() or {}) or results
        super()._do_eval()
        self._func = evaluate
        if self.best_metric and comm.is_main_process():
            self._keep_best(flatten_results_dict(results))

    def _keep_best(self, results: dict[str, float]) -> None:
        if self.best_metric not in results:
            raise ValueError(
                f"TEST.BEST_METRIC {self.best_metric!r} is not among the results: "
                f"{', '.join(results)}"
            )
        value = float(results[self.best_metric])
        if not value > self.best:  # also if it is not a number
            return
        self.best = value
        # In this order: after an interruption between the two, the weights are at least as good
        # as the record says.
        save_weights(self.model, self.record.with_suffix(".pth"))
        done = min(self.trainer.iter + 1, self.trainer.max_iter)
        record = {"metric": self.best_metric, "value": value, "iterations": done}
        partial = self.record.with_suffix(".partial")
        partial.write_text(json.dumps(record) + "\n")
        os.replace(partial, self.record)
        logging.getLogger(__name__).info(
            f"{self.best_metric} {value:.4f} is the best so far: {self.record.with_suffix('.pth')}"
        )


def standard_hooks(
    *,
    checkpointer: Checkpointer,
    average: WeightAverage | None,
    checkpoint_period: int,
    evaluate: Evaluate,
    writers: Sequence[EventWriter],
    max_to_keep: int | None = None,
    log_period: int = 20,
    lr_scheduler: hooks.LRScheduler | None = None,
) -> list[HookBase]:
    """The hooks of a training, in the order in which they depend on each other."""
    found = [hooks.IterationTimer(), lr_scheduler or hooks.LRScheduler()]
    if average is not None:
        found.append(AverageWeights(average))
    if comm.is_main_process():
        found.append(
            hooks.PeriodicCheckpointer(checkpointer, checkpoint_period, max_to_keep=max_to_keep)
        )
    found.append(evaluate)
    if comm.is_main_process():
        found.append(hooks.PeriodicWriter(writers, log_period))
    return found
