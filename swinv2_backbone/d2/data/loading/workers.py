"""The processes that load data: they leave signals to the trainer, and end when it does."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing.util import Finalize

from torch.utils.data import DataLoader

_at_exit: Finalize | None = None


def leave_signals_to_parent(worker: int) -> None:
    """In a worker: clusters and terminals signal all processes, and the trainer still needs it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def undisturbed_by_signals(loader: DataLoader) -> DataLoader:
    """A loader to test with, whose workers leave signals to the trainer."""
    end_workers_at_exit()
    loader.worker_init_fn = leave_signals_to_parent
    return loader


def end_workers_at_exit() -> None:
    """Let no worker that ignores SIGTERM, by which Python ends it, keep this process from exiting.

    Workers usually end with their loader; an error in one of them keeps it alive.
    """
    global _at_exit
    # Known to multiprocessing itself, as a process that it started runs no atexit functions; but
    # such a process forgets what was known before it started.
    if _at_exit is None or not _at_exit.still_active():
        _at_exit = Finalize(None, _kill_workers, exitpriority=100)


def _kill_workers() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's would call that an error
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
