"""Hooks that end training before its last iteration: early stopping and a time limit."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from pathlib import Path

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.checkpoints.records import read_record_or
from swinv2_backbone.d2.engine.evaluate import Evaluate
from swinv2_backbone.d2.engine.signals import TIME_IS_UP
from swinv2_backbone.d2.engine.step import TrainingStep

RECORD = "early_stopping.json"


class EarlyStopping(HookBase):
    """End training when a metric has not risen for a number of evaluations.

    The values of all evaluations are kept in ``early_stopping.json``, so that a resumed run
    counts evaluations like an uninterrupted one.

    Args:
        metric: name of the metric, such as "bbox/AP"; higher is better.
        patience: number of evaluations without improvement.
        step: training step, which this hook asks to end.
        evaluate: evaluation hook, whose results have the metric.
        output_dir: folder of the record.

    Raises:
        ValueError: the evaluation has no such metric.
    """

    def __init__(
        self,
        metric: str,
        patience: int,
        step: TrainingStep,
        evaluate: Evaluate,
        output_dir: str | os.PathLike,
    ):
        self.metric, self.patience, self.step, self.evaluate = metric, patience, step, evaluate
        self.record = Path(output_dir, RECORD)
        self.values: list[tuple[int, float | None]] = []  # (iterations done, value; None: NaN)

    def before_train(self) -> None:
        values = []
        if comm.is_main_process() and not self.trainer.start_iter:
            self.record.unlink(missing_ok=True)  # that of an earlier run
        if comm.is_main_process() and self.trainer.start_iter:
            values = read_record_or([], self.record, "the evaluations are counted anew")
        start = self.trainer.start_iter
        self.values = [(done, value) for done, value in comm.all_gather(values)[0] if done <= start]
        if start and self.evaluate.evaluated == start and start not in dict(self.values):
            self._note(start, flatten_results_dict(self.evaluate.results))
        self._check()

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self.evaluate.evaluated == done and done < self.trainer.max_iter:
            self._note(done, flatten_results_dict(self.evaluate.results))
            self._check()

    def _note(self, done: int, results: dict[str, float]) -> None:
        """Add the value of an evaluation, which only the main process has."""
        absent = self.metric not in results
        value = float(results.get(self.metric, math.nan))
        value, absent, names = comm.all_gather((value, absent, list(results)))[0]
        if absent:
            raise ValueError(f"the results have no {self.metric!r}, only {', '.join(names)}")
        self.values.append((done, value if math.isfinite(value) else None))
        if comm.is_main_process():
            write_text(self.record, json.dumps(self.values) + "\n")

    def _check(self) -> None:
        values = [-math.inf if value is None else value for _, value in self.values]
        best = values.index(max(values)) if values else 0
        if len(values) - 1 - best >= self.patience:
            self.step.ending = (
                f"Early stopping: {self.metric} has not risen for {self.patience} evaluations, "
                f"from {values[best]:.4f} after {self.values[best][0]} iterations"
            )


class TimeLimit(HookBase):
    """End training after a time limit, with a checkpoint and an evaluation.

    Args:
        seconds: time from the first iteration of this run; the checkpoint and the evaluation
            take additional time.
        step: training step, whose exchange between processes makes all of them stop together.
    """

    def __init__(self, seconds: float, step: TrainingStep):
        self.seconds, self.step = seconds, step

    def before_train(self) -> None:
        self.deadline = time.monotonic() + self.seconds

    def before_step(self) -> None:
        if time.monotonic() >= self.deadline and not self.step.stop_request.signal:
            logging.getLogger(__name__).warning(
                f"The time limit of {self.seconds / 60:g} minutes is reached: stopping after this "
                "iteration"
            )
            self.step.stop_request.signal = TIME_IS_UP
