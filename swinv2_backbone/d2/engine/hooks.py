"""Hooks around a training step, in their order: checkpoints, logs and an orderly end."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from swinv2_backbone.checkpoints.durable import remove_partials, write_text
from swinv2_backbone.d2.data.validation.report import counted
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.engine.ema import AverageWeights, WeightAverage
from swinv2_backbone.d2.engine.evaluate import Evaluate
from swinv2_backbone.d2.engine.lock import require_lock
from swinv2_backbone.d2.engine.periodic_writer import PeriodicWriter
from swinv2_backbone.d2.engine.sharded_state import model_state
from swinv2_backbone.d2.engine.shared_errors import raise_in_all_processes
from swinv2_backbone.d2.engine.signals import (
    TIME_IS_UP,
    TrainingEnded,
    exit_code,
    worker_losses_deferred,
)
from swinv2_backbone.d2.engine.step import TrainingStep

ADAMW_STATES = 2  # tensors of the size of a parameter in the optimizer's state


class SaveCheckpoints(HookBase):
    """Save a checkpoint periodically, and after the last iteration as ``model_final``.

    The last iteration is saved only as ``model_final``. If there were two files, a run killed
    between them would resume after its last iteration and never have a final checkpoint.

    Every process has this hook, because every process has state to save (random generators,
    shards).

    Args:
        step: training step, whose state is gathered from all processes.
        period: iterations between checkpoints.
        max_to_keep: number of latest checkpoints of this run to keep besides the final one; None:
            all.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        step: TrainingStep,
        period: int,
        max_to_keep: int | None = None,
    ):
        self.checkpointer, self.step, self.period = checkpointer, step, period
        self.max_to_keep, self.saved = max_to_keep, -1
        self.kept: list[str] = []

    def before_train(self) -> None:
        if comm.is_main_process() and self.checkpointer.save_dir:
            remove_partials(Path(self.checkpointer.save_dir))
            self._warn_of_full_disk()

    def _warn_of_full_disk(self) -> None:
        """Warn if the next checkpoint will not fit on the disk, before the time is spent."""
        folder = Path(self.checkpointer.save_dir)
        model = sum(one.nbytes for one in self.checkpointer.evaluated.state_dict().values())
        groups = self.step.optimizer.param_groups
        trained = sum(each.nbytes for group in groups for each in group["params"])
        averages = 1 if "average" in self.checkpointer.checkpointables else 0
        needed = model + (ADAMW_STATES + averages) * trained
        free = shutil.disk_usage(folder).free
        if free < needed:
            logging.getLogger(__name__).warning(
                f"a checkpoint takes about {needed / 2**20:,.0f} MiB, but only "
                f"{free / 2**20:,.0f} MiB are free in {folder}: free space, or training ends at "
                "its next checkpoint"
            )

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
        """Save this iteration, unless it has been saved.

        Raises:
            OSError: the file could not be written; raised in all processes.
            FloatingPointError: the weights are not finite; raised in all processes.
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
        failure: Exception | None = None
        with self.step.collected(), worker_losses_deferred():
            state = model_state(self.checkpointer.evaluated)
            try:
                require_lock(self.checkpointer.save_dir)
                self.checkpointer.save(name, iteration=self.trainer.iter, model=state)
            except OSError as error:
                failure = OSError(str(error))
            except FloatingPointError as error:
                failure = FloatingPointError(str(error))
        raise_in_all_processes(failure)
        self.saved = self.trainer.iter


class Stop(HookBase):
    """Save and end training after a signal, a time limit or early stopping.

    After a signal a checkpoint is saved. After a time limit there is also an evaluation, and after
    early stopping the checkpoint is the final one. This must be the last hook.

    Args:
        augmented: evaluate again at an early stop, because only the last evaluation is augmented.
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
        if self.step.ending:  # the resumed run had already ended
            raise TrainingEnded(self.step.ending)
        number = max(comm.all_gather(self.step.stop_request.signal))
        if number not in (0, TIME_IS_UP):
            name, iteration = signal.Signals(number).name, self.trainer.start_iter
            logging.getLogger(__name__).warning(
                f"{name}: stopped before iteration {iteration}; the checkpoints are unchanged"
            )
            raise SystemExit(exit_code(number))

    def after_step(self) -> None:
        if self.step.stopping and self.step.stopping != TIME_IS_UP:
            self.checkpoints.save()
            name = signal.Signals(self.step.stopping).name
            logging.getLogger(__name__).warning(
                f"{name}: stopped after iteration {self.trainer.iter}, which is saved; --resume "
                "continues"
            )
            raise SystemExit(exit_code(self.step.stopping))
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            return
        if self.step.ending:
            self.checkpoints.save_final()
            if self.augmented:
                self.evaluate.evaluated = -1
            self.evaluate.run()
            self._exit_if_signalled()
            raise TrainingEnded(self.step.ending)
        if self.step.stopping:
            self.checkpoints.save()
            self.evaluate.run()
            self._exit_if_signalled()
            raise TrainingEnded(
                f"Time limit: stopped after iteration {self.trainer.iter}, which is saved; "
                "--resume continues"
            )

    def _exit_if_signalled(self) -> None:
        """Exit if a signal came during the evaluation, which may have been abandoned."""
        if self.step.stopping not in (0, TIME_IS_UP):
            raise SystemExit(exit_code(self.step.stopping))


class EndOfData(HookBase):
    """Stop the workers of the loader after training, and list the images that were skipped."""

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
        except OSError as error:  # do not hide an exception that ended training
            logger.error(str(error))
        logger.warning(
            f"skipped: {counted(len(broken), 'image')} that could not be read; {path} lists all"
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
    """Return the training hooks in the order in which they depend on each other.

    Args:
        early_ends: hooks that may ask the step to end training.
        augmented: whether the last evaluation, and only that one, is augmented.
    """
    found = [hooks.IterationTimer(), lr_scheduler or hooks.LRScheduler()]
    if average is not None:
        found.append(AverageWeights(average))
    checkpoints = SaveCheckpoints(checkpointer, step, checkpoint_period, max_to_keep)
    found += [EndOfData(step, output_dir), checkpoints, evaluate]
    if comm.is_main_process():
        found.append(PeriodicWriter(writers, log_period, evaluate))
    return [*found, *early_ends, Stop(step, checkpoints, evaluate, augmented)]
