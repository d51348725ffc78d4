"""``swinv2 predict --shards``: any number of images, by any number of processes."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swinv2_backbone.cli import tiles

if TYPE_CHECKING:
    from swinv2_backbone.d2.config.plan import TrainingPlan
    from swinv2_backbone.d2.inference.predictor import Predictor
    from swinv2_backbone.d2.inference.scale.run_record import Run
    from swinv2_backbone.d2.inference.scale.worker import Worker

FAILED_SHOWN = 10
SETTINGS = (  # the options on which the results depend
    *("input", "recursive", "column", "confidence", "half", "shard_size", "format"),
    *("tile", "overlap", "tile_scale"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of runs over many images."""
    group = parser.add_argument_group("many images (docs/PREDICT_SCALE.md)")
    add = group.add_argument
    add(
        "--shards",
        type=Path,
        metavar="DIR",
        help="write results without drawings, in files of --shard-size images; the same command "
        "continues the run. --input also takes .tar files, lists of paths (.txt) and tables "
        "(.csv, .parquet)",
    )
    add("--format", choices=("jsonl", "parquet"), default="jsonl", help="of the results")
    add("--shard-size", type=int, default=200, metavar="N", help="images in a file; default: 200")
    add("--recursive", action="store_true", help="also take the images of subfolders")
    add("--column", default="file_name", metavar="NAME", help="of the paths in tables")
    add("--ray", action="store_true", help="predict on a Ray cluster, or by local actors")
    add("--workers", type=int, metavar="N", help="actors of --ray; default: one per GPU, or one")


def require_one_process(args: argparse.Namespace) -> None:
    """Raise ValueError if a command without ``--shards`` lacks its output, or is run many times."""
    if args.output is None:
        raise ValueError("give --output DIR for drawings, or --shards DIR for many images")
    if args.ray or _process()[1] > 1:
        raise ValueError("several processes write --shards DIR, not --output")


def run(args: argparse.Namespace) -> None:
    """Predict the images of ``--input`` that no process has predicted yet."""
    from swinv2_backbone.d2.engine.trainer import load_plan

    rank, world = _process()
    _check(args, world)
    plan = load_plan(args.config_file, args.opts, args.imports)
    begun = _begun(args, plan, rank)
    if begun and not begun.missing():
        print(f"{args.shards} has the results of all {begun.count:,} images")
        return
    if args.ray:
        assert begun  # there is one driver, and its rank is 0
        failed = _with_ray(args, plan, begun)
    else:
        failed = _alone(args, begun, rank, world)
    if failed:
        shown = "\n".join(failed[:FAILED_SHOWN])
        print(f"{len(failed)} images failed, as their results tell:\n{shown}", file=sys.stderr)


def load_model(args: argparse.Namespace) -> Predictor:
    """Load the model of a process and check that it is the one that began the run."""
    from swinv2_backbone.d2.engine.trainer import load_plan
    from swinv2_backbone.d2.inference.predictor import predictor_of_plan
    from swinv2_backbone.d2.inference.scale.settings import require_same_model
    from swinv2_backbone.d2.inference.tiling import require_joinable

    _choose_gpu()
    plan = load_plan(args.config_file, args.opts, args.imports)
    predictor = predictor_of_plan(plan, args.confidence, args.half)
    if args.tile:
        require_joinable(predictor)
    require_same_model(args.shards, predictor)
    return predictor


def build_worker(args: argparse.Namespace, run: Run, predictor: Predictor | None = None) -> Worker:
    """Return the worker of a process; without a loaded model it loads one, as Ray's actors do."""
    from swinv2_backbone.d2.inference.scale.steps import Steps, Tiled, Whole
    from swinv2_backbone.d2.inference.scale.worker import Worker

    predictor, tiling = predictor or load_model(args), tiles.tiling_of(args)
    steps: Steps = Whole(predictor, args.batch_size)
    if tiling:
        steps = Tiled(predictor, tiling)
    return Worker(run, steps, args.threads)


def _alone(args: argparse.Namespace, begun: Run | None, rank: int, world: int) -> list[str]:
    """Predict by this process, one of ``world`` that do not know of each other."""
    from swinv2_backbone.d2.inference.scale.progress import Progress
    from swinv2_backbone.d2.inference.scale.run_record import record, tidy, wait_for_run
    from swinv2_backbone.d2.inference.scale.worker import shards_for

    predictor = load_model(args)  # before the record, so that a wrong model leaves none
    run = record(begun) if begun else wait_for_run(args.shards)
    worker = build_worker(args, run, predictor)
    progress = Progress(run)
    if rank == 0:
        worker.notice = progress
    worker.work(shards_for(run, rank, world))
    if rank == 0:
        progress.end()
        tidy(run)
    return worker.failed


def _with_ray(args: argparse.Namespace, plan: TrainingPlan, begun: Run) -> list[str]:
    from swinv2_backbone.d2.inference.scale.ray_pool import predict_with_ray
    from swinv2_backbone.d2.inference.scale.run_record import record

    device = plan.config.MODEL.DEVICE if "MODEL" in plan.config else plan.config.train.device
    on_gpus = str(device).startswith("cuda")
    return predict_with_ray(record(begun), partial(build_worker, args), args.workers, on_gpus)


def _begun(args: argparse.Namespace, plan: TrainingPlan, rank: int) -> Run | None:
    """Return the run to continue, or list the images of a new one; None if another process does.

    Raises:
        ValueError: it was begun with other settings, or there are no images.
    """
    from swinv2_backbone.d2.data.loading.bands import BANDS
    from swinv2_backbone.d2.inference.scale.run_record import find_run, list_images, require_same
    from swinv2_backbone.d2.inference.scale.settings import model_settings
    from swinv2_backbone.d2.inference.scale.sources import Sources
    from swinv2_backbone.images.kinds import described

    given: dict[str, Any] = {
        f"--{name.replace('_', '-')}": getattr(args, name) for name in SETTINGS
    }
    settings = given | model_settings(plan)
    if found := find_run(args.shards):
        require_same(found, settings)
        return found
    if rank:
        return None
    bands = plan.augmentation.image_format == BANDS
    sources = Sources(args.input, args.recursive, args.column, bands)
    listed = list_images(args.shards, sources, args.shard_size, args.format, settings)
    if sources.passed_over:
        print(f"skipped ({len(sources.passed_over)}):")
        print("\n".join(described(sources.passed_over)))
    return listed


def _check(args: argparse.Namespace, world: int) -> None:
    from swinv2_backbone.d2.inference.scale.ray_pool import require_ray
    from swinv2_backbone.d2.inference.scale.shards import require_format

    for name in ("shard_size", "workers"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if args.output or args.overwrite:
        raise ValueError("--shards DIR takes the place of --output and --overwrite")
    if args.workers and not args.ray:
        raise ValueError("--workers is the number of Ray's actors: add --ray, or use torchrun")
    if args.ray and world > 1:
        raise ValueError("--ray starts the processes itself: run one command, without torchrun")
    if args.ray:
        require_ray()
    require_format(args.format)


def _process() -> tuple[int, int]:
    """Return the number of this process and how many there are, as torchrun tells them."""
    try:
        rank, world = (int(os.environ.get(name, default)) for name, default in _PLACE.items())
    except ValueError as error:
        raise ValueError(f"RANK and WORLD_SIZE must be numbers: {error}") from error
    if not 0 <= rank < world:
        raise ValueError(f"RANK must be from 0 to WORLD_SIZE - 1, got {rank} of {world}")
    return rank, world


_PLACE = {"RANK": "0", "WORLD_SIZE": "1"}


def _choose_gpu() -> None:
    import torch

    if "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
