"""Hooks around a training step: evaluation, checkpoints, and an orderly end."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from detectron2.engine import HookBase, hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from torch import nn

from swinv2_backbone.checkpoints.durable import remove_partials, write_text
from swinv2_backbone.d2.engine.checkpoint import Checkpointer, save_weights
from swinv2_backbone.d2.engine.ema import AverageWeights, WeightAverage
from swinv2_backbone.d2.engine.parallel import gathered, model_state
from swinv2_backbone.d2.engine.rng import undisturbed_rng
from swinv2_backbone.d2.engine.signals import TIME_IS_UP, TrainingEnded, exit_code
from swinv2_backbone.d2.engine.step import TrainingStep

BEST = "model_best"


class Evaluate(hooks.EvalHook):
    """Detectron2's ``EvalHook``, which also keeps the weights that were best so far.

    Best is the highest ``best_metric``.  ``model_best.pth`` holds the weights alone, and
    ``model_best.json`` what they reached, so that a resumed training does not forget it.
    (Detectron2's ``BestCheckpointer`` does, and makes the best the one to resume from.)

    Args:
        period: in iterations; 0: only after the last.
        evaluate: returns the results, as ``inference_on_dataset`` nests them.
        step: training step, whose stop request is polled during evaluation.
        best_metric: such as "bbox/AP"; "" keeps nothing.
        model: model that ``evaluate`` evaluates.

    Attributes:
        results: results of the last evaluation, nested as ``evaluate`` returns them.
        evaluated: iterations that were done at the last evaluation; -1: there was none.
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
        self.step, self.best_metric, self.model = step, best_metric, model
        self.record = Path(output_dir, f"{BEST}.json")
        self.best = -math.inf
        self.results: dict = {}
        self.evaluated = -1

    def run(self) -> None:
        """Evaluate now, unless that was done after this iteration."""
        if self.evaluated != self.trainer.iter + 1:
            self._do_eval()

    def before_train(self) -> None:
        if not (self.best_metric and comm.is_main_process()):
            return
        if self.trainer.start_iter == 0:  # what an earlier training reached does not count
            self.record.unlink(missing_ok=True)
        elif self.record.is_file():
            record = json.loads(self.record.read_text())
            if record["metric"] == self.best_metric:
                self.best = record["value"]

    def after_train(self) -> None:
        if sys.exc_info()[1] is not None:  # the training was stopped, or failed
            return
        super().after_train()
        if self.step.stopping and self.step.stopping != TIME_IS_UP:  # here time is up anyway
            raise SystemExit(exit_code(self.step.stopping))

    def _do_eval(self) -> None:
        evaluate, results = self._func, {}
        self._func = lambda: results.update(evaluate() or {}) or results
        watch = self.model.register_forward_pre_hook(self._look_for_signal)
        try:
            # A training that is resumed has no evaluation before its next step.
            with undisturbed_rng(), gathered(self.model):
                super()._do_eval()
            self.results, self.evaluated = results, self.trainer.iter + 1
            if self.best_metric:
                self._keep_best(flatten_results_dict(results))
        except _AbandonedError:
            logging.getLogger(__name__).warning("The evaluation is abandoned")
        finally:
            watch.remove()
            self._func = evaluate
        self.step.stopping = max(comm.all_gather(self.step.stop_request.signal))

    def _look_for_signal(self, model: nn.Module, inputs: tuple) -> None:
        # Several processes finish it, as they wait for each other at its end.
        if self.step.stop_request.signal not in (0, TIME_IS_UP) and comm.get_world_size() == 1:
            raise _AbandonedError

    def _keep_best(self, results: dict[str, float]) -> None:
        """Called by all processes; the main process knows the results."""
        value = results.get(self.best_metric, math.nan)
        absent = self.best_metric not in results
        better, absent, names = comm.all_gather((value > self.best, absent, list(results)))[0]
        if absent:
            raise ValueError(
                f"the best metric {self.best_metric!r} is not among the results: {', '.join(names)}"
            )
        if not better:  # also if it is not a number
            return
        state = model_state(self.model)
        if not comm.is_main_process():
            return
        self.best = value = float(value)
        # In this order: after an interruption between the two, the weights are at least as good
        # as the record says.
        save_weights(self.model, state, self.record.with_suffix(".pth"))
        done = min(self.trainer.iter + 1, self.trainer.max_iter)
        record = {"metric": self.best_metric, "value": value, "iterations": done}
        write_text(self.record, json.dumps(record) + "\n")
        logging.getLogger(__name__).info(
            f"{self.best_metric} {value:.4f} is the best so far: {self.record.with_suffix('.pth')}"
        )


class _AbandonedError(Exception):
    """An evaluation for which there is no time."""


class PreciseBN(hooks.PreciseBN):
    """Detectron2's, which leaves the random generators of the training alone."""

    def update_stats(self) -> None:
        with undisturbed_rng():
            super().update_stats()


class SaveCheckpoints(HookBase):
    """Saves every so many iterations, and the last one as ``model_final``.

    The last is saved once: if it had two files, a training that is killed between them would be
    resumed after its last iteration, and have no final one.

    All processes have this hook, as all have something to save (random generators, shards).

    Args:
        step: what else is to be saved.
        period: in iterations.
        max_to_keep: of the files of this run, beside the final one; None: all.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        step: TrainingStep,
        period: int,
        max_to_keep: int | None = None,
    ):
        self.checkpointer, self.step, self.period = checkpointer, step, period
        self.max_to_keep, self.kept, self.saved = max_to_keep, [], -1

    def before_train(self) -> None:
        if comm.is_main_process() and self.checkpointer.save_dir:
            remove_partials(Path(self.checkpointer.save_dir))

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done >= self.trainer.max_iter:
            self.save_final()
        elif done % self.period == 0:
            self.save()

    def save_final(self) -> None:
        """Save this iteration as the final one."""
        self._save("model_final")

    def save(self) -> None:
        """Save this iteration, unless it is saved.

        Raises:
            OSError: in all processes: it could not be written.
        """
        if self.saved == self.trainer.iter:
            return
        self._save(name := f"model_{self.trainer.iter:07d}")
        self.kept.append(name)
        while self.max_to_keep and len(self.kept) > self.max_to_keep:
            oldest = Path(self.checkpointer.save_dir, f"{self.kept.pop(0)}.pth")
            if comm.is_main_process():
                oldest.unlink(missing_ok=True)

    def _save(self, name: str) -> None:
        failure = None
        with self.step.collected():
            state = model_state(self.checkpointer.evaluated)
            try:
                self.checkpointer.save(name, iteration=self.trainer.iter, model=state)
            except OSError as error:
                failure = str(error)
        if failure := next(filter(None, comm.all_gather(failure)), None):
            raise OSError(failure)
        self.saved = self.trainer.iter


class PeriodicWriter(hooks.PeriodicWriter):
    """Detectron2's, which may divide by zero if a training is stopped where it has just written."""

    def after_train(self) -> None:
        done = self.trainer.iter + 1
        written = done % self._period == 0 or done >= self.trainer.max_iter
        if not (written and isinstance(sys.exc_info()[1], SystemExit)):
            super().after_train()
            return
        for writer in self._writers:
            writer.close()


class Stop(HookBase):
    """Ends the training, with everything saved, if there is a reason to; the last of the hooks.

    After a signal a checkpoint is saved. After a time limit there is also an evaluation, and after
    early stopping the checkpoint is the final one.

    Args:
        augmented: evaluate again at an early stop, as only the last evaluation is augmented.
    """

    def __init__(
        self,
        step: TrainingStep,
        checkpoints: SaveCheckpoints,
        evaluate: Evaluate,
        augmented: bool = False,
    ):
        self.step, self.checkpoints = step, checkpoints
        self.evaluate, self.augmented = evaluate, augmented

    def before_train(self) -> None:
        if self.step.ending:  # a training that had ended is resumed
            raise TrainingEnded(self.step.ending)

    def after_step(self) -> None:
        if self.step.stopping and self.step.stopping != TIME_IS_UP:
            self.checkpoints.save()
            name = signal.Signals(self.step.stopping).name
            logging.getLogger(__name__).warning(
                f"{name}: stopped after iteration {self.trainer.iter}, which is saved; --resume "
                "goes on"
            )
            raise SystemExit(exit_code(self.step.stopping))
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            return
        if self.step.ending:
            self.checkpoints.save_final()
            if self.augmented:
                self.evaluate.evaluated = -1
            self.evaluate.run()
            raise TrainingEnded(self.step.ending)
        if self.step.stopping:
            self.checkpoints.save()
            self.evaluate.run()
            raise TrainingEnded(
                f"The time is up: stopped after iteration {self.trainer.iter}, which is saved; "
                "--resume goes on"
            )


class EndOfData(HookBase):
    """At the end, ends the workers of the loader, and says which images were passed over."""

    def __init__(self, step: TrainingStep, output_dir: str | os.PathLike):
        self.step, self.output_dir = step, output_dir

    def after_train(self) -> None:
        if hasattr(self.step.data_loader, "close"):
            self.step.data_loader.close()
        broken = self.step.broken
        if not (broken and comm.is_main_process()):
            return
        path, logger = Path(self.output_dir, "broken_images.txt"), logging.getLogger(__name__)
        try:
            write_text(path, "".join(f"{file}\t{why}\n" for file, why in broken.items()))
        except OSError as error:  # there may be another one already
            logger.error(str(error))
        logger.warning(
            f"{len(broken)} images could not be read and were passed over; {path} names them"
        )


def standard_hooks(
    *,
    step: TrainingStep,
    checkpointer: Checkpointer,
    average: WeightAverage | None,
    checkpoint_period: int,
    evaluate: Evaluate,
    writers: Sequence[EventWriter],
    output_dir: str | os.PathLike,
    max_to_keep: int | None = None,
    log_period: int = 20,
    lr_scheduler: hooks.LRScheduler | None = None,
    early_ends: Sequence[HookBase] = (),
    augmented: bool = False,
) -> list[HookBase]:
    """Return the hooks of a training in the order in which they depend on each other.

    Args:
        early_ends: hooks that may ask the step to end the training.
        augmented: only the last evaluation is augmented.
    """
    found = [hooks.IterationTimer(), lr_scheduler or hooks.LRScheduler()]
    if average is not None:
        found.append(AverageWeights(average))
    checkpoints = SaveCheckpoints(checkpointer, step, checkpoint_period, max_to_keep)
    found += [EndOfData(step, output_dir), checkpoints, evaluate]
    if comm.is_main_process():
        found.append(PeriodicWriter(writers, log_period))
    return [*found, *early_ends, Stop(step, checkpoints, evaluate, augmented)]
