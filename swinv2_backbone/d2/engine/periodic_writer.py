"""The hook that writes the metrics of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from detectron2.engine import hooks
from detectron2.utils.events import CommonMetricPrinter, EventWriter

from swinv2_backbone.d2.engine.evaluate import Evaluate
from swinv2_backbone.d2.engine.metrics import RunWriter

logger = logging.getLogger(__name__)


class PeriodicWriter(hooks.PeriodicWriter):
    """Detectron2's writer hook, whose writers do not end a training if the disk is full.

    It also writes after an evaluation, whose results would otherwise be lost if the process is
    killed, and avoids the division by zero of Detectron2's if training stops after a write.
    """

    def __init__(self, writers: Sequence[EventWriter], period: int, evaluate: Evaluate):
        super().__init__(writers, period)
        self.evaluate = evaluate
        self.failing: set[EventWriter] = set()
        self.written = -1  # the last iteration at which all were called

    def before_train(self) -> None:
        for writer in self._writers:
            if isinstance(writer, RunWriter):
                self._call(writer, partial(writer.begin, self.trainer.start_iter))

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 or done in (self.trainer.max_iter, self.evaluate.evaluated):
            self._write()

    def after_train(self) -> None:
        self._write()
        for writer in self._writers:
            self._call(writer, writer.close)

    def _write(self) -> None:
        again = self.trainer.iter == self.written
        for writer in self._writers:
            # This one may divide by the number of iterations since its last call.
            if not (again and isinstance(writer, CommonMetricPrinter)):
                self._call(writer, writer.write)
        self.written = self.trainer.iter

    def _call(self, writer: EventWriter, action: Callable[[], None]) -> None:
        """Call a method of a writer; its first error is logged, and training goes on."""
        try:
            action()
        except OSError as error:
            if writer not in self.failing:
                logger.error(
                    f"{type(writer).__name__} cannot write metrics, and tries again later: {error}"
                )
            self.failing.add(writer)
        else:
            self.failing.discard(writer)
