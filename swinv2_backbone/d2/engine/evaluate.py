"""Evaluation during training, and the best weights so far."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

from detectron2.engine import hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from torch import nn

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.checkpoints.records import read_record, read_record_or
from swinv2_backbone.d2.engine.checkpoint import save_weights
from swinv2_backbone.d2.engine.finite import require_finite
from swinv2_backbone.d2.engine.lock import require_lock_in_all_processes
from swinv2_backbone.d2.engine.parallel import gathered
from swinv2_backbone.d2.engine.rng import undisturbed_rng
from swinv2_backbone.d2.engine.sharded_state import model_state
from swinv2_backbone.d2.engine.signals import TIME_IS_UP, exit_code
from swinv2_backbone.d2.engine.step import TrainingStep

BEST, LAST = "model_best", "last_evaluation.json"


class Evaluate(hooks.EvalHook):
    """Detectron2's ``EvalHook``, which also keeps the weights with the highest ``best_metric``.

    A checkpoint is saved before its evaluation. If the process is killed between the two, the
    resumed run evaluates first; ``last_evaluation.json`` has the last complete evaluation.

    ``model_best.pth`` has only the weights. ``model_best.json`` has the value that they reached,
    so that a resumed run takes it into account. (Detectron2's ``BestCheckpointer`` forgets the
    value and makes the best the checkpoint to resume from.)

    Args:
        period: iterations between evaluations; 0: only after the last iteration.
        evaluate: function that returns results, nested like those of ``inference_on_dataset``.
        step: training step, whose stop request is polled during evaluation.
        best_metric: name of a metric, such as "bbox/AP"; "" keeps no best weights.
        model: model that ``evaluate`` evaluates.

    Attributes:
        results: results of the last evaluation, nested as ``evaluate`` returns them.
        evaluated: number of iterations done at the last evaluation; -1: there was none.
    """

    def __init__(
        self,
        period: int,
        evaluate: Callable[[], dict],
        *,
        step: TrainingStep,
        best_metric: str,
        model: nn.Module,
        output_dir: str | os.PathLike,
    ):
        super().__init__(period, evaluate)
        self.evaluate = evaluate
        self.step, self.best_metric, self.model = step, best_metric, model
        self.record = Path(output_dir, f"{BEST}.json")
        self.last = Path(output_dir, LAST)
        self.best = -math.inf
        self.results: dict = {}
        self.evaluated = -1

    def run(self) -> None:
        """Evaluate now, unless this iteration has been evaluated."""
        if self.evaluated != self.trainer.iter + 1:
            self._do_eval()

    def before_train(self) -> None:
        self._restore_best()
        done = self.trainer.start_iter
        if not done and comm.is_main_process():
            self.last.unlink(missing_ok=True)  # that of an earlier run
        if 0 < done < self.trainer.max_iter and self._period and done % self._period == 0:
            self._restore_last(done)

    def _restore_last(self, done: int) -> None:
        """Take the results of the evaluation after ``done`` iterations, or evaluate now."""
        record = {}
        if comm.is_main_process():
            remedy = "the evaluation of this checkpoint is repeated"
            record = read_record_or({}, self.last, remedy)
        last = comm.all_gather(record.get("iterations", -1))[0]
        if last > done:  # the checkpoint is an earlier one, whose evaluation was completed
            return
        if last == done:
            self.results, self.evaluated = record.get("results", {}), done
            return
        logging.getLogger(__name__).info(f"The evaluation after iteration {done - 1} is missing")
        trainer = self.trainer
        trainer.iter = trainer.storage.iter = done - 1
        self._do_eval()
        trainer.iter = trainer.storage.iter = done

    def _restore_best(self) -> None:
        if not (self.best_metric and comm.is_main_process()):
            return
        if self.trainer.start_iter == 0:  # the record of an earlier run does not count
            self.record.unlink(missing_ok=True)
        elif self.record.is_file():
            record = self._read_best()
            if record["metric"] == self.best_metric:
                self.best = record["value"]

    def _read_best(self) -> dict:
        """Read the record of the best weights; exit, without a traceback, if it is damaged."""
        weights = self.record.with_suffix(".pth")
        remedy = f"delete it, and move {weights} away, which the next evaluation would replace"
        try:
            return read_record(self.record, remedy)
        except ValueError as error:
            raise SystemExit(f"ValueError: {error}") from error

    def after_train(self) -> None:
        if sys.exc_info()[1] is not None:  # training was stopped or failed
            return
        super().after_train()
        if self.step.stopping and self.step.stopping != TIME_IS_UP:  # not for a time limit
            raise SystemExit(exit_code(self.step.stopping))

    def _do_eval(self) -> None:
        require_lock_in_all_processes(self.last.parent)
        results: dict = {}

        def recorded() -> dict:
            require_finite(self.model, "there is nothing to evaluate")
            results.update(self.evaluate() or {})
            return results

        self._func = recorded
        watch = self.model.register_forward_pre_hook(self._look_for_signal)
        try:
            # A run that resumes here does not evaluate before its next step.
            with undisturbed_rng(), gathered(self.model):
                super()._do_eval()
            self.results, self.evaluated = results, self.trainer.iter + 1
            if self.best_metric:
                self._keep_best(flatten_results_dict(results))
            if comm.is_main_process():
                values = {key: float(one) for key, one in flatten_results_dict(results).items()}
                done = min(self.evaluated, self.trainer.max_iter)
                record = {"iterations": done, "results": values}
                write_text(self.last, json.dumps(record) + "\n")
        except _AbandonedError:
            logging.getLogger(__name__).warning("The evaluation was aborted by the signal")
        finally:
            watch.remove()
        self.step.stopping = max(comm.all_gather(self.step.stop_request.signal))

    def _look_for_signal(self, model: nn.Module, inputs: tuple) -> None:
        # Several processes finish the evaluation, because they wait for each other at its end.
        if self.step.stop_request.signal not in (0, TIME_IS_UP) and comm.get_world_size() == 1:
            raise _AbandonedError

    def _keep_best(self, results: dict[str, float]) -> None:
        """Save the weights if they are the best so far; every process calls this."""
        value = results.get(self.best_metric, math.nan)
        absent = self.best_metric not in results
        better, absent, names = comm.all_gather((value > self.best, absent, list(results)))[0]
        if absent:
            raise ValueError(
                f"the best metric {self.best_metric!r} is not among the results: {', '.join(names)}"
            )
        if not better:  # or the value is NaN
            return
        state = model_state(self.model)
        if not comm.is_main_process():
            return
        self.best = value = float(value)
        # Weights first: after an interruption between the two, they are at least as good as the
        # record says.
        save_weights(self.model, state, self.record.with_suffix(".pth"))
        done = min(self.trainer.iter + 1, self.trainer.max_iter)
        record = {"metric": self.best_metric, "value": value, "iterations": done}
        write_text(self.record, json.dumps(record) + "\n")
        logging.getLogger(__name__).info(
            f"{self.best_metric} {value:.4f} is the best so far: {self.record.with_suffix('.pth')}"
        )


class _AbandonedError(Exception):
    """Raised to abandon an evaluation after a signal."""


class PreciseBN(hooks.PreciseBN):
    """Detectron2's hook; it leaves the random generators of training unchanged."""

    def update_stats(self) -> None:
        with undisturbed_rng():
            super().update_stats()
