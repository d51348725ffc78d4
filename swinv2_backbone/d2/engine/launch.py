"""Starting training in one or several processes, on one or several machines.

Processes use GPUs (NCCL) or CPUs (gloo), and may also be started by torchrun. Detectron2's
``launch`` needs GPUs for several processes, does not support torchrun, and leaves processes behind
when it is terminated.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from swinv2_backbone.d2.engine.signals import SIGNALS, end_without_traceback, exit_code

TIMEOUT = timedelta(minutes=30)  # of one collective operation
GRACE = 30.0  # seconds for the other processes to end after one has failed
POLL = 1.0  # seconds


class LaunchError(ValueError):
    """The processes cannot be started as the command line asks for."""


def launch(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> Any:
    """Call ``main(args)`` in every process; return its result if it ran in this process.

    Args:
        args: Detectron2's ``num_gpus`` (processes on this machine, with or without GPUs),
            ``num_machines``, ``machine_rank`` and ``dist_url``; torchrun sets its own.

    Raises:
        SystemExit: a signal ended training; the code is 128 + the signal.
        LaunchError: there are too few GPUs, or torchrun and these options contradict each other.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _join_torchrun(main, args)
    world = args.num_gpus * args.num_machines
    if world <= 1:
        return main(args)
    if torch.cuda.is_available() and args.num_gpus > torch.cuda.device_count():
        raise LaunchError(f"--num-gpus {args.num_gpus}: there are {torch.cuda.device_count()} GPUs")
    first_rank = args.machine_rank * args.num_gpus
    with _interrupts_later() as later:
        processes = mp.start_processes(
            _run,
            args=(main, args, first_rank, world, args.num_gpus, _url(args)),
            nprocs=args.num_gpus,
            join=False,
            start_method="spawn",
        )
        _wait(processes, later)


def _join_torchrun(main: Callable, args: argparse.Namespace) -> Any:
    if args.num_gpus != 1 or args.num_machines != 1:
        raise LaunchError("torchrun starts the processes: omit --num-gpus and --num-machines")
    local_rank, rank = int(os.environ["LOCAL_RANK"]), int(os.environ["RANK"])
    world, local_world = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    return _run(local_rank, main, args, rank - local_rank, world, local_world, "env://")


def _url(args: argparse.Namespace) -> str:
    """Return the address of the rendezvous of the processes."""
    defaults = ("auto", default_argument_parser().get_default("dist_url"))
    if args.num_machines == 1 and args.dist_url in defaults:
        # Detectron2's default is one port per user, so two runs of a user would collide.
        return f"tcp://127.0.0.1:{_free_port()}"
    return args.dist_url


@contextlib.contextmanager
def _interrupts_later() -> Iterator[Callable[[], object]]:
    """Block Ctrl-C in this process until the function that is yielded is called.

    The processes that are started meanwhile inherit that until they call ``main``: their imports
    would answer by a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield lambda: None
        return
    resource_tracker.ensure_running()  # unblocks Ctrl-C when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    restore = functools.partial(signal.pthread_sigmask, signal.SIG_SETMASK, before)
    try:
        yield restore
    finally:
        restore()


def _wait(processes: mp.ProcessContext, listen: Callable[[], object]) -> None:
    """Wait for the processes to end, and forward signals to them.

    The first signal asks them to stop, the second kills them.

    Args:
        listen: called when signals can be forwarded.
    """
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process in processes.processes:
            if process.is_alive():
                _ask_to_stop(process) if len(received) == 1 else process.kill()

    before = {number: signal.signal(number, forward) for number in SIGNALS}
    listen()
    try:
        while not processes.join(timeout=POLL, grace_period=GRACE):
            pass
    except mp.ProcessExitedException as error:
        if not received:
            if error.exit_code < 0:  # killed
                raise
            sys.exit(error.exit_code)  # the process has printed its error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        end_without_traceback()
        sys.exit(exit_code(received[0]))


def _ask_to_stop(process: BaseProcess) -> None:
    """Send SIGTERM; on Windows that would kill, and Ctrl-C reaches all processes of a console."""
    if sys.platform != "win32":
        process.terminate()


def _run(
    local_rank: int,
    main: Callable,
    args: argparse.Namespace,
    first_rank: int,
    world: int,
    local_world: int,
    url: str,
) -> Any:
    """Join the process group and call ``main(args)``."""
    if hasattr(signal, "pthread_sigmask"):
        # PyTorch sends it to its processes when their launcher dies, so that they end with it.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(local_rank)
    dist.init_process_group(
        backend="nccl" if gpus else "gloo",
        init_method=url,
        rank=first_rank + local_rank,
        world_size=world,
        timeout=TIMEOUT,
    )
    _create_local_groups(world, local_world)
    comm.synchronize()
    result = main(args)
    _leave_groups()  # not after an error: it would wait for the other processes
    return result


def _leave_groups() -> None:
    """Destroy the process groups, and with them their threads.

    A thread of gloo that drops its last tensor while Python ends aborts the process, so nothing may
    keep a group until then: neither Detectron2's ``comm`` nor a model in a reference cycle.
    """
    dist.destroy_process_group()
    comm._LOCAL_PROCESS_GROUP = None
    comm._get_global_gloo_group.cache_clear()
    gc.collect()


def _create_local_groups(world: int, local_world: int) -> None:
    """Create Detectron2's groups of the processes on one machine."""
    for first in range(0, world, local_world):
        ranks = list(range(first, first + local_world))
        group = dist.new_group(ranks)
        if dist.get_rank() in ranks:
            comm._LOCAL_PROCESS_GROUP = group


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
