"""Functions in separate processes: one that is killed, or several of one training.

The processes are forked, so that nothing is imported again.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from detectron2.utils import comm

FORK = multiprocessing.get_context("fork")


def start(function: Callable, *args: Any, log: Path | None = None) -> multiprocessing.Process:
    """Run ``function(*args)`` in a process, whose output goes to the file ``log``."""
    process = FORK.Process(target=_quietly, args=(function, args, log))
    process.start()
    return process


def _quietly(function: Callable, args: tuple, log: Path | None) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler if number == 2 else signal.SIG_DFL)
    target = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(target, descriptor)
    sys.stdout, sys.stderr = (os.fdopen(d, "w", buffering=1, closefd=False) for d in (1, 2))
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, force=True)
    for name in ("detectron2", "fvcore", "swinv2_backbone"):  # they have handlers of the parent
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    code = 0
    try:
        function(*args)
    except SystemExit as stopped:
        code = stopped.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def kill_after(process: multiprocessing.Process, seconds: float) -> bool:
    """Kill a process (-9) unless it ends before; returns True if it was killed."""
    process.join(seconds)
    if not process.is_alive():
        return False
    process.kill()
    process.join()
    return True


def together(
    world: int, function: Callable, *args: Any, folder: Path, timeout: float = 120
) -> list:
    """Return the results of ``function(*args)`` in ``world`` processes of one gloo group.

    An error in any process fails the test, with the output of all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    running = [
        start(_member, rank, world, function, args, folder, log=folder / f"log{rank}.txt")
        for rank in range(world)
    ]
    deadline = time.monotonic() + timeout
    for process in running:
        process.join(max(0.0, deadline - time.monotonic()))
    hung = [rank for rank, process in enumerate(running) if process.is_alive()]
    for process in running:
        process.kill()
        process.join()
    logs = "\n".join((folder / f"log{rank}.txt").read_text()[-3000:] for rank in range(world))
    assert not hung, f"processes {hung} hung:\n{logs}"
    assert not any(process.exitcode for process in running), logs
    return [pickle.loads((folder / f"result{rank}.pkl").read_bytes()) for rank in range(world)]


def _member(rank: int, world: int, function: Callable, args: tuple, folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        (folder / f"result{rank}.pkl").unlink()
    join_group(rank, world, folder)
    result = function(*args)
    (folder / f"result{rank}.pkl").write_bytes(pickle.dumps(result))
    dist.barrier()


def join_group(rank: int, world: int, folder: Path) -> None:
    """Join a gloo group whose processes meet in a folder."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting_{world}", rank=rank, world_size=world
    )
    comm._LOCAL_PROCESS_GROUP = dist.new_group(list(range(world)))
