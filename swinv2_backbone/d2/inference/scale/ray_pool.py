"""The shards of a large run, predicted by actors of Ray Data that each hold a model.

Ray restarts an actor that is killed and repeats its shard. Whether a shard is done is told by its
file alone, as without Ray.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from swinv2_backbone.d2.inference.scale.progress import Progress
from swinv2_backbone.d2.inference.scale.run_record import Run, tidy
from swinv2_backbone.d2.inference.scale.worker import Worker

EXTRA = "pip install 'swinv2_backbone[ray]'"


def require_ray() -> None:
    """Raise ImportError if Ray Data is not installed."""
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise ImportError(f"--ray needs Ray Data: {EXTRA}") from error


def predict_with_ray(
    run: Run, build: Callable[[Run], Worker], workers: int | None, on_gpus: bool
) -> list[str]:
    """Predict the missing shards of a run on a Ray cluster, or on this machine without one.

    Args:
        build: makes the worker of an actor; it is called once in each.
        workers: number of actors; default: one for each GPU, or one.
        on_gpus: whether an actor needs a GPU.

    Returns:
        A message for each image that failed.
    """
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    there = ray.cluster_resources()
    workers = workers or (int(there.get("GPU", 1)) if on_gpus else 1)
    cpus = 1 if on_gpus else max(1, int(there.get("CPU", 1)) // workers)
    progress, failed = Progress(run), []
    if missing := run.missing():
        shards = ray.data.from_items(
            [{"shard": shard} for shard in missing], override_num_blocks=len(missing)
        )
        done = shards.map_batches(
            ShardActor,
            fn_constructor_kwargs={"run": run, "build": build},
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=cpus,
            num_gpus=1 if on_gpus else 0,
        )
        for row in done.iter_rows():
            failed += row["failed"]
            progress()
    progress.end()
    tidy(run)
    return failed


class ShardActor:
    """One model, which predicts the shards that Ray sends."""

    def __init__(self, run: Run, build: Callable[[Run], Worker]):
        os.chdir(run.base)  # of the relative paths in the user's command
        self.worker = build(run)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        shards = batch["shard"].tolist()
        self.worker.failed.clear()
        self.worker.work(shards)
        return {"shard": shards, "failed": [list(self.worker.failed) for _ in shards]}
