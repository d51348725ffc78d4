"""The training loader: batches that do not depend on workers and resume at any point.

Detectron2's loader draws random numbers in its workers, in an order that depends on them, so that
a resumed training sees other images with other augmentations. Here the k-th image of a training is
drawn and augmented by its number k and the seed alone. Resuming after n batches counts the first n
without reading them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Any

import torch
from detectron2.data import DatasetFromList
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Sampler

from swinv2_backbone.d2.data.loading.draws import Draw, DrawnImages
from swinv2_backbone.d2.data.loading.images import image_size
from swinv2_backbone.d2.data.loading.workers import end_workers_at_exit, leave_signals_to_parent
from swinv2_backbone.d2.data.storage.records import Records

HEADERS_AT_ONCE = 8  # threads that read the sizes of images
MAX_BROKEN = 0.01  # share of a dataset's images that may be broken
MakeSampler = Callable[[int], Sampler]  # seed -> an endless stream of this process's images


class TrainLoader:
    """An endless loader of batches (lists of records), each for one forward of the model.

    Only one iteration can run at a time; ``load_state_dict`` affects the next one.

    Args:
        records: of a Detectron2 dataset.
        mapper: record -> input of the model; may use Python's, NumPy's and PyTorch's generators.
        total_batch_size: images of all processes.
        make_sampler: seed -> sampler; default: every image once per epoch, in random order.
        sampler: alternative to ``make_sampler``; it must repeat itself in a resumed training.
        aspect_ratio_grouping: each batch has only portrait or only landscape images.
        num_workers: processes that load; 0: this one.
        max_broken: share of the images that may be broken, which :class:`TrainingStep` enforces.
            Broken images are replaced by others.
        seed: default: one that all processes agree on.

    Attributes:
        max_broken: as a count.
        images: number of images that all processes were given.
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
        _check(len(records), total_batch_size, max_broken)
        self.total_batch_size = total_batch_size
        self.batch_size = total_batch_size // comm.get_world_size()
        self.portrait = _portrait(records) if aspect_ratio_grouping else [False] * len(records)
        self.records = _in_little_memory(records)
        self.mapper, self.num_workers = mapper, num_workers
        self.own_order = sampler is None
        if sampler is not None:
            make_sampler = lambda seed: sampler  # noqa: E731
        self.make_sampler = make_sampler or every_image(len(records))
        self.max_broken = int(max_broken * len(records))
        self.seed = comm.shared_random_seed() if seed is None else seed
        self.images = 0
        self._broken: dict[str, str] = {}
        # A weak reference: in a reference cycle, pipes may be closed before workers are ended.
        self._running: Callable[[], Generator[list[dict]] | None] = lambda: None

    def __iter__(self) -> Iterator[list[dict]]:
        self.close()
        running = self._batches()
        self._running = weakref.ref(running)
        return running

    def _batches(self) -> Generator[list[dict]]:
        end_workers_at_exit()
        loader = DataLoader(
            DrawnImages(self.records, self.mapper, self.seed),
            batch_sampler=self._upcoming(),
            num_workers=self.num_workers,
            collate_fn=_identity,
            worker_init_fn=leave_signals_to_parent,
            generator=torch.Generator(),  # else DataLoader draws from the model's generator
        )
        batches = iter(loader)
        try:
            for batch in batches:
                self.images += self.total_batch_size
                for drawn in batch:
                    self._broken |= drawn.broken
                yield [drawn.record for drawn in batch]
        finally:  # an error that keeps the iterator alive would keep its workers alive too
            getattr(batches, "_shutdown_workers", lambda: None)()

    def close(self) -> None:
        """End the iteration and its workers."""
        if running := self._running():
            running.close()

    def take_broken(self) -> dict[str, str]:
        """Return the broken images of this process since the last call: file -> error."""
        broken, self._broken = self._broken, {}
        return broken

    def state_dict(self) -> dict[str, int]:
        return {"seed": self.seed, "images": self.images}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.seed, self.images = state["seed"], state["images"]

    def next_draws(self, count: int) -> list[Draw]:
        """Return images that the next iteration will start with, without a change to it.

        A given ``sampler`` may have a state that must not change: then the images are spread over
        the dataset instead.
        """
        if self.own_order:
            return list(islice(chain.from_iterable(self._upcoming()), count))
        count = min(count, len(self.records))
        return [Draw(place, place * len(self.records) // count) for place in range(count)]

    def _upcoming(self) -> Iterator[list[Draw]]:
        """Yield the batches of this process, starting with the first that is not loaded yet."""
        return islice(self._draws(), self.images // self.total_batch_size, None)

    def _draws(self) -> Iterator[list[Draw]]:
        """Yield the batches of this process, starting with the first of the training."""
        rank, world = comm.get_rank(), comm.get_world_size()
        groups: dict[bool, list[Draw]] = {}
        for step, index in enumerate(self.make_sampler(self.seed)):
            portrait = self.portrait[index]
            group = groups.setdefault(portrait, [])
            group.append(Draw(step * world + rank, index))
            if len(group) == self.batch_size:
                yield groups.pop(portrait)


def build_train_loader(
    dataset: Sequence[dict], *, mapper: Callable[[dict], dict], total_batch_size: int, **kwargs: Any
) -> TrainLoader:
    """Build a loader from a LazyConfig, called as Detectron2's ``build_detection_train_loader``.

    The keyword arguments are those of :class:`TrainLoader`.
    """
    return TrainLoader(dataset, mapper, total_batch_size=total_batch_size, **kwargs)


def every_image(size: int) -> MakeSampler:
    """Return a factory of samplers that draw each of ``size`` images once per epoch."""
    return lambda seed: TrainingSampler(size, seed=seed)


def _check(images: int, total_batch_size: int, max_broken: float) -> None:
    world = comm.get_world_size()
    if total_batch_size % world:
        raise ValueError(
            f"the {world} processes must have equally many of the {total_batch_size} images of a "
            "forward (SOLVER.IMS_PER_BATCH / SOLVER.ACCUMULATE, or "
            "dataloader.train.total_batch_size / train.accumulate)"
        )
    if not 0 <= max_broken < 1:
        raise ValueError(f"max_broken must be in [0, 1), got {max_broken}")
    if not images:
        raise ValueError("there are no images to train on")


def _portrait(records: Sequence[dict]) -> list[bool]:
    """Return which images are at least as high as they are wide.

    Records without sizes, as those of Detectron2's ADE20K, have them from the images' headers.
    """
    if isinstance(records, Records):
        height, width = records.sizes().T
        return (width <= height).tolist()
    if all("height" in record and "width" in record for record in records):
        return [record["width"] <= record["height"] for record in records]
    with ThreadPoolExecutor(HEADERS_AT_ONCE) as pool:
        return list(pool.map(_is_portrait, (record["file_name"] for record in records)))


def _is_portrait(file: str) -> bool:
    try:
        height, width = image_size(file)
    except OSError:
        return False  # a broken image, which is reported when it is drawn
    return width <= height


def _in_little_memory(records: Sequence[dict]) -> Sequence[dict]:
    """Serialize a list of records, so that worker processes share its memory."""
    return records if isinstance(records, Records) else DatasetFromList(list(records), copy=False)


def _identity(batch: list) -> list:
    return batch
