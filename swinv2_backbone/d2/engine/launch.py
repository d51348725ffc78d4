"""Start a training in as many processes as asked for: one, several here, on several machines, or
as torchrun did; on GPUs (NCCL) and on CPUs (gloo).

Detectron2's ``launch`` refuses to start several processes without GPUs, knows nothing of torchrun,
and leaves processes behind when it is told to end.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from swinv2_backbone.d2.engine.signals import SIGNALS, exit_code

TIMEOUT = timedelta(minutes=30)  # of an exchange between processes
GRACE = 30.0  # seconds that the others have when one has failed
POLL = 1.0  # seconds


def launch(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> Any:
    """``main(args)`` in every process; of one process alone also what it returns.

    Args:
        args: with Detectron2's ``num_gpus`` (processes of this machine, with or without GPUs),
            ``num_machines``, ``machine_rank`` and ``dist_url``; with torchrun, its own count.

    Raises:
        SystemExit: a signal ended the training; the code is 128 + the signal.
        ValueError: there are not as many GPUs, or torchrun and these options disagree.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        if args.num_gpus != 1 or args.num_machines != 1:
            raise ValueError("torchrun starts the processes: leave out --num-gpus, --num-machines")
        local_rank, rank = int(os.environ["LOCAL_RANK"]), int(os.environ["RANK"])
        world, local_world = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        return _run(local_rank, main, args, rank - local_rank, world, local_world, "env://")
    world = args.num_gpus * args.num_machines
    if world <= 1:
        return main(args)
    if torch.cuda.is_available() and args.num_gpus > torch.cuda.device_count():
        raise ValueError(f"--num-gpus {args.num_gpus}: there are {torch.cuda.device_count()}")
    url = args.dist_url
    theirs = ("auto", default_argument_parser().get_default("dist_url"))
    if args.num_machines == 1 and url in theirs:
        url = f"tcp://127.0.0.1:{_free_port()}"  # the default is the same for all of a user's
    processes = mp.start_processes(
        _run,
        args=(main, args, args.machine_rank * args.num_gpus, world, args.num_gpus, url),
        nprocs=args.num_gpus,
        join=False,
        start_method="spawn",
    )
    return _watch(processes)


def _watch(processes: mp.ProcessContext) -> None:
    """Wait for the processes, and hand signals on: the first asks, the second ends them."""
    received = []

    def hand_on(number: int, frame: Any) -> None:
        received.append(number)
        for process in processes.processes:
            if process.is_alive():
                process.terminate() if len(received) == 1 else process.kill()

    before = {number: signal.signal(number, hand_on) for number in SIGNALS}
    try:
        while not processes.join(timeout=POLL, grace_period=GRACE):
            pass
    except mp.ProcessExitedException as error:
        if not received:
            if error.exit_code < 0:  # killed
                raise
            sys.exit(error.exit_code)  # it has said why
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        sys.exit(exit_code(received[0]))


def _run(
    local_rank: int,
    main: Callable,
    args: argparse.Namespace,
    first_rank: int,
    world: int,
    local_world: int,
    url: str,
) -> Any:
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
    _know_machine(world, local_world)
    comm.synchronize()
    result = main(args)
    dist.destroy_process_group()  # not after an error, when it would wait for the others
    return result


def _know_machine(world: int, local_world: int) -> None:
    """Tell Detectron2 which processes share a machine."""
    for first in range(0, world, local_world):
        ranks = list(range(first, first + local_world))
        group = dist.new_group(ranks)
        if dist.get_rank() in ranks:
            comm._LOCAL_PROCESS_GROUP = group


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
