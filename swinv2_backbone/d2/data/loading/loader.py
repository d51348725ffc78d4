"""Batches to train on: the same for any number of workers, from anywhere on, past broken images.

Detectron2's loader draws in its workers, in batches that depend on them, so that a training which
is resumed sees other images, augmented in another way.  Here the k-th image of a training is drawn
and augmented by its number k and the seed alone.  To go on after n batches, the first n are
counted, not read.
"""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, get_detection_dataset_dicts
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.data.samplers import (
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from swinv2_backbone.d2.data.loading.mapper import DatasetMapper
from swinv2_backbone.d2.data.loading.workers import end_workers_at_exit, leave_signals_to_parent
from swinv2_backbone.d2.engine.rng import seeded_on_cpu

MAX_BROKEN = 0.01  # the share of a dataset's images that may be broken
TRIES = 100  # images for one place in a batch
UNREADABLE = (OSError, SizeMismatchError)
MakeSampler = Callable[[int], Sampler]  # seed -> an endless stream of this process's images


class Draw(NamedTuple):
    """An image of the stream: its number among those of all processes, its place in the dataset."""

    number: int
    index: int


class Mapped(NamedTuple):
    """What came of a draw; ``broken``: file -> what is wrong with it, of images passed over."""

    record: dict
    broken: dict[str, str]


class TrainLoader:
    """Endless batches (lists of records) of the images that go through the model at once.

    Can be iterated over once at a time; ``load_state_dict`` counts for the next iteration.

    Args:
        records: of a Detectron2 dataset.
        mapper: record -> what the model takes; may use Python's, NumPy's and PyTorch's generators.
        total_batch_size: images of all processes.
        make_sampler: seed -> sampler; default: everything once, in a new order each time.
        sampler: instead, one that gives the same again in a training that is resumed.
        aspect_ratio_grouping: batches of upright or of other images only.
        num_workers: processes that load; 0: this one.
        max_broken: share of the images that may be broken: what :class:`TrainingStep` allows.
            Others are taken in their places.
        seed: default: one that all processes agree on.

    Attributes:
        max_broken: as a count.
    """

    def __init__(
        self,
        records: Sequence[dict],
        mapper: Callable[[dict], dict],
        *,
        total_batch_size: int,
        make_sampler: MakeSampler | None = None,
        sampler: Sampler | None = None,
        aspect_ratio_grouping: bool = True,
        num_workers: int = 0,
        max_broken: float = MAX_BROKEN,
        seed: int | None = None,
    ):
        world = comm.get_world_size()
        if total_batch_size % world:
            raise ValueError(
                f"the {world} processes must have equally many of the {total_batch_size} images "
                "that go through the model at once (SOLVER.IMS_PER_BATCH / SOLVER.ACCUMULATE, or "
                "dataloader.train.total_batch_size / train.accumulate)"
            )
        if not 0 <= max_broken < 1:
            raise ValueError(f"max_broken must be in [0, 1), got {max_broken}")
        if not len(records):
            raise ValueError("there are no images to train on")
        self.total_batch_size, self.batch_size = total_batch_size, total_batch_size // world
        self.upright = [
            aspect_ratio_grouping and record["width"] <= record["height"] for record in records
        ]
        self.records = DatasetFromList(list(records), copy=False)
        self.mapper, self.num_workers = mapper, num_workers
        if sampler is not None:
            make_sampler = lambda seed: sampler  # noqa: E731
        self.make_sampler = make_sampler or _everything(len(records))
        self.max_broken = int(max_broken * len(records))
        self.seed = comm.shared_random_seed() if seed is None else seed
        self.images = 0  # that all processes were given
        self._broken: dict[str, str] = {}
        # In a cycle of references, pipes may be closed before workers are told to end.
        self._running: Callable[[], Iterator[list[dict]] | None] = lambda: None

    def __iter__(self) -> Iterator[list[dict]]:
        self.close()
        running = self._batches()
        self._running = weakref.ref(running)
        return running

    def _batches(self) -> Iterator[list[dict]]:
        end_workers_at_exit()
        loader = DataLoader(
            _Images(self.records, self.mapper, self.seed),
            batch_sampler=islice(self._draws(), self.images // self.total_batch_size, None),
            num_workers=self.num_workers,
            collate_fn=_as_it_is,
            worker_init_fn=leave_signals_to_parent,
            generator=torch.Generator(),  # else it would draw from the model's
        )
        batches = iter(loader)
        try:
            for batch in batches:
                self.images += self.total_batch_size
                for drawn in batch:
                    self._broken |= drawn.broken
                yield [drawn.record for drawn in batch]
        finally:  # while an error keeps the iterator, it would not end its workers itself
            getattr(batches, "_shutdown_workers", lambda: None)()

    def close(self) -> None:
        """End the iteration and its workers."""
        if running := self._running():
            running.close()

    def take_broken(self) -> dict[str, str]:
        """The broken images that this process met since the last call: file -> what is wrong."""
        broken, self._broken = self._broken, {}
        return broken

    def state_dict(self) -> dict[str, int]:
        return {"seed": self.seed, "images": self.images}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.seed, self.images = state["seed"], state["images"]

    def _draws(self) -> Iterator[list[Draw]]:
        """The batches of this process, from the first on."""
        rank, world = comm.get_rank(), comm.get_world_size()
        groups: dict[bool, list[Draw]] = {}
        for step, index in enumerate(self.make_sampler(self.seed)):
            upright = self.upright[index]
            group = groups.setdefault(upright, [])
            group.append(Draw(step * world + rank, index))
            if len(group) == self.batch_size:
                yield groups.pop(upright)


class _Images(Dataset):
    """Maps draws; lives in the workers."""

    def __init__(self, records: Sequence[dict], mapper: Callable, seed: int):
        self.records, self.mapper, self.seed = records, mapper, seed

    def __getitem__(self, draw: Draw) -> Mapped:
        broken: dict[str, str] = {}
        with seeded_on_cpu(self.seed, draw.number):
            index = draw.index
            for _ in range(TRIES):
                record = self.records[index]
                try:
                    return Mapped(self.mapper(record), broken)
                except UNREADABLE as error:
                    broken[str(record["file_name"])] = f"{error}"
                index = random.randrange(len(self.records))
        raise BrokenImagesError(broken, len(self.records), 0)


class BrokenImagesError(ValueError):
    """More images are broken than may be."""

    def __init__(self, broken: dict[str, str] | str, total: int = 0, allowed: int = 0):
        if isinstance(broken, str):  # as workers hand it on
            super().__init__(broken)
            return
        examples = "\n".join(f"  {file}: {why}" for file, why in list(broken.items())[:10])
        super().__init__(
            f"{len(broken)} of {total} images cannot be read, {allowed} may "
            "(DATALOADER.MAX_BROKEN_IMAGES, max_broken of a LazyConfig's build_train_loader, or "
            f"--max-broken, which is a share of all):\n{examples}"
        )


def _as_it_is(batch: list) -> list:
    return batch


def build_train_loader(
    dataset: Sequence[dict], *, mapper: Callable[[dict], dict], total_batch_size: int, **kwargs
) -> TrainLoader:
    """For LazyConfigs, called as Detectron2's ``build_detection_train_loader``.

    Arguments: those of :class:`TrainLoader`.
    """
    return TrainLoader(dataset, mapper, total_batch_size=total_batch_size, **kwargs)


def train_loader_from_config(
    cfg: CfgNode, mapper: Callable[[dict], dict] | None = None
) -> TrainLoader:
    """What ``cfg`` says of DATASETS.TRAIN, DATALOADER, INPUT and SOLVER."""
    node = cfg.DATALOADER
    records = get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN,
        filter_empty=node.FILTER_EMPTY_ANNOTATIONS,
        min_keypoints=cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
        if cfg.MODEL.KEYPOINT_ON
        else 0,
        proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
    )
    return TrainLoader(
        records,
        mapper or DatasetMapper(cfg, is_train=True),
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH // cfg.SOLVER.ACCUMULATE,
        make_sampler=_sampler(cfg, records),
        aspect_ratio_grouping=node.ASPECT_RATIO_GROUPING,
        num_workers=node.NUM_WORKERS,
        max_broken=node.MAX_BROKEN_IMAGES,
    )


def _everything(size: int) -> MakeSampler:
    return lambda seed: TrainingSampler(size, seed=seed)


def _sampler(cfg: CfgNode, records: list[dict]) -> MakeSampler:
    node, size = cfg.DATALOADER, len(records)
    if node.SAMPLER_TRAIN == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            records, node.REPEAT_THRESHOLD
        )
        return lambda seed: RepeatFactorTrainingSampler(factors, seed=seed)
    if node.SAMPLER_TRAIN == "RandomSubsetTrainingSampler":
        return lambda seed: RandomSubsetTrainingSampler(
            size, node.RANDOM_SUBSET_RATIO, seed_shuffle=seed, seed_subset=seed
        )
    if node.SAMPLER_TRAIN != "TrainingSampler":
        raise ValueError(
            f"DATALOADER.SAMPLER_TRAIN {node.SAMPLER_TRAIN!r} is unknown: there are "
            "TrainingSampler, RepeatFactorTrainingSampler and RandomSubsetTrainingSampler"
        )
    return _everything(size)
