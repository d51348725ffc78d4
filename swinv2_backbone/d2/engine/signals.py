"""SIGTERM and Ctrl-C as requests to stop, which are polled after each iteration."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# The stop request of a time limit. It is smaller than every number in SIGNALS, so that the maximum
# over all processes is a signal if any process received one.
TIME_IS_UP = 1


class TrainingEnded(SystemExit):
    """Raised to end training before its last iteration, after everything was saved."""


class StopRequest:
    """A context manager that records the first of ``SIGNALS`` instead of ending the process.

    A second signal is handled as without this context manager, so that it ends the process at once.
    Launched processes ignore a second signal, because their launcher handles it. In a process that
    a library forks, such as a worker of panopticapi, signals act as without this context manager.

    Args:
        launched: True if this is one of several processes.

    Attributes:
        signal: number of the recorded signal, ``TIME_IS_UP``, or 0.
    """

    def __init__(self, launched: bool = False):
        self.signal, self.launched, self._process = 0, launched, os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self.signal = 0  # of an earlier training by the same trainer
        if threading.current_thread() is threading.main_thread():  # others cannot set handlers
            self._before = {number: signal.signal(number, self._record) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _record(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # its parent may wait for its end
            self._restore()
            os.kill(os.getpid(), number)
            return
        if self.signal not in (0, TIME_IS_UP):
            return
        self.signal = number
        logging.getLogger(__name__).warning(
            f"{signal.Signals(number).name}: stopping after this iteration, with a checkpoint; a "
            "second signal ends the run at once"
        )
        if not self.launched:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@contextlib.contextmanager
def worker_losses_deferred() -> Iterator[None]:
    """Report a loader worker that dies inside only afterwards, so that a checkpoint is completed.

    PyTorch reports it by an error in the handler of SIGCHLD, that is, at any place in the code.

    Raises:
        RuntimeError: PyTorch's, at the end.
    """
    if not (hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()):
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGCHLD, lambda *call: came.append(call))
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
    if came and callable(before):
        before(*came[-1])


def end_without_traceback() -> None:
    """Let Ctrl-C end the process at once from now on, for a process that is about to exit."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def ending_by_signals() -> Iterator[None]:
    """Call :func:`end_without_traceback` if a command exits because of a signal."""
    try:
        yield
    except SystemExit as end:
        if end.code in [exit_code(number) for number in SIGNALS]:
            end_without_traceback()
        raise


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def exit_code(number: int) -> int:
    """Return the exit code of a process ended by a signal, as in shells: 143 for SIGTERM."""
    return 128 + number
