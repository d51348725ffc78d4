"""Jobs of some minutes whose results are kept, so that none is repeated.

A job writes one file of results into the folder at its end.  It may need others, whose files (for
example weights) it reads.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from swinv2_backbone.checkpoints.durable import write_text


@dataclass(frozen=True)
class Job:
    """``work(folder, **options)`` returns the result as JSON content.

    Attributes:
        name: The name of its file; the same name with other options is an error.
        needs: Names of the jobs that must be done before it.
        alone: True if no other job runs beside it, for measured times.
    """

    name: str
    work: Callable[..., dict]
    options: dict
    needs: tuple[str, ...] = ()
    alone: bool = False


def run(jobs: Sequence[Job], folder: Path, processes: int) -> dict[str, dict]:
    """Run the jobs without a result, as many at once as processes; return all results.

    Raises:
        ValueError: The folder has the result of a job of that name with other options.
        RuntimeError: A job failed.  Results of the others are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = finished(jobs, folder)
    waiting = [job for job in jobs if job.name not in results]
    print(f"{len(jobs)} jobs, {len(results)} of them done", flush=True)
    running: dict[Future, Job] = {}
    with ProcessPoolExecutor(processes, get_context("spawn"), _begin) as pool:
        while waiting or running:
            for job in [j for j in waiting if results.keys() >= set(j.needs)]:
                quiet = job.alone or any(other.alone for other in running.values())
                if len(running) >= (1 if quiet else processes):
                    break
                waiting.remove(job)
                running[pool.submit(_do, folder, job)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    results[job.name] = future.result()
                except Exception as error:
                    pool.shutdown(cancel_futures=True)
                    raise RuntimeError(f"{job.name} failed, options {job.options}") from error
                left = len(waiting) + len(running)
                print(f"{job.name}: {_numbers(results[job.name])} ({left} left)", flush=True)
    return {job.name: results[job.name] for job in jobs}


def finished(jobs: Sequence[Job], folder: Path) -> dict[str, dict]:
    """Return the results of the jobs that are done."""
    return {job.name: found for job in jobs if (found := _result(folder, job)) is not None}


def _begin() -> None:
    torch.set_num_threads(1)


def _do(folder: Path, job: Job) -> dict:
    begun = time.monotonic()
    result = job.work(folder, **job.options)
    result["minutes"] = (time.monotonic() - begun) / 60
    content = {"options": job.options, "result": result}
    write_text(_file(folder, job), json.dumps(content, indent=1) + "\n")
    return json.loads(json.dumps(result))


def _file(folder: Path, job: Job) -> Path:
    return folder / f"{job.name}.json"


def _result(folder: Path, job: Job) -> dict | None:
    path = _file(folder, job)
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["options"] != json.loads(json.dumps(job.options)):
        raise ValueError(
            f"{path} is the result of other options, {content['options']} instead of "
            f"{job.options}: move it away, or choose another --output"
        )
    return content["result"]


def read_result(folder: Path, name: str) -> dict:
    """Return the result of a job that is done."""
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["result"]


def _numbers(result: dict) -> str:
    numbers = {key: value for key, value in result.items() if isinstance(value, float)}
    return ", ".join(f"{key} {value:.2f}" for key, value in numbers.items()) or "done"


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Add ``--processes`` to a command that runs jobs."""
    parser.add_argument(
        "--processes",
        type=_at_least_one,
        default=min(4, len(os.sched_getaffinity(0))),
        help="jobs at once, with one thread each",
    )


def _at_least_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number
