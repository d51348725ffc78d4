"""Worker processes that load data: they ignore stop signals and end with the training process."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing.util import Finalize

from torch.utils.data import DataLoader

_at_exit: Finalize | None = None


def leave_signals_to_parent(worker: int) -> None:
    """Ignore SIGTERM and SIGINT in a worker process.

    Clusters and terminals send them to all processes, but the training process still needs its
    workers until it has saved a checkpoint.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def undisturbed_by_signals(loader: DataLoader) -> DataLoader:
    """Make the workers of an evaluation's loader ignore stop signals."""
    end_workers_at_exit()
    loader.worker_init_fn = leave_signals_to_parent
    return loader


def end_workers_at_exit() -> None:
    """Kill remaining workers when this process exits.

    Python ends them by SIGTERM, which they ignore, so that the process would wait forever.
    Workers usually end with their loader, but an error in one of them keeps the loader alive.
    """
    global _at_exit
    # Registered with multiprocessing, since a process that it started runs no atexit functions;
    # such a process forgets what was registered before it started.
    if _at_exit is None or not _at_exit.still_active():
        _at_exit = Finalize(None, _kill_workers, exitpriority=100)


def _kill_workers() -> None:
    if hasattr(signal, "SIGCHLD"):  # not on Windows
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would report an error
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
