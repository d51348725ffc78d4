"""SIGTERM and Ctrl-C as a wish, which the end of an iteration grants."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
TIME_IS_UP = 14  # stands for a time limit where a signal's number is expected: that of SIGALRM


class TrainingEnded(SystemExit):
    """The end of a training before its last iteration, with everything saved."""


class StopRequest:
    """Within its ``with`` block, remembers the first of ``SIGNALS`` instead of dying of it.

    The second signal acts as if there were no block, so that nobody has to wait; in a process that
    was launched among others, whoever launched it sees to that.

    Attributes:
        signal: the number of the signal; 0: there was none.
    """

    def __init__(self, launched: bool = False):
        self.signal, self.launched = 0, launched
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # others may not
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            return
        self.signal = number
        logging.getLogger(__name__).warning(
            f"{signal.Signals(number).name}: stopping after this iteration; a checkpoint is saved"
        )
        if not self.launched:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def exit_code(number: int) -> int:
    """What a process that a signal stopped exits with, as shells have it: 143 of SIGTERM."""
    return 128 + number
