"""Single images of the training stream: augmented by their number, replaced if broken."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from detectron2.data.detection_utils import SizeMismatchError
from torch.utils.data import Dataset

from swinv2_backbone.d2.data.loading.seeding import seeded_on_cpu

TRIES = 100  # images tried for one place in a batch
UNREADABLE = (OSError, SizeMismatchError)


class Draw(NamedTuple):
    """An image of the stream: its number among all processes, and its place in the dataset."""

    number: int
    place: int


class Mapped(NamedTuple):
    """A mapped record, and the broken images skipped on the way to it: file -> error."""

    record: dict
    broken: dict[str, str]


class DrawnImages(Dataset):
    """Maps draws to records, in the worker processes.

    Args:
        records: of a Detectron2 dataset.
        mapper: record -> input of the model.
        seed: determines every augmentation, together with the number of the draw.
    """

    def __init__(self, records: Sequence[dict], mapper: Callable[[dict], dict], seed: int):
        self.records, self.mapper, self.seed = records, mapper, seed

    def __getitem__(self, draw: Draw) -> Mapped:
        broken: dict[str, str] = {}
        with seeded_on_cpu(self.seed, draw.number):
            index = draw.place
            for _ in range(TRIES):
                record = self.records[index]
                try:
                    return Mapped(self.mapper(record), broken)
                except UNREADABLE as error:
                    broken[str(record["file_name"])] = f"{error}"
                index = random.randrange(len(self.records))
        raise BrokenImagesError(broken, len(self.records), 0)


class BrokenImagesError(ValueError):
    """More images are broken than allowed."""

    def __init__(self, broken: dict[str, str] | str, total: int = 0, allowed: int = 0):
        if isinstance(broken, str):  # PyTorch rebuilds a worker's error from its text
            super().__init__(broken)
            return
        examples = "\n".join(f"  {file}: {why}" for file, why in list(broken.items())[:10])
        super().__init__(
            f"{len(broken)} of {total} images cannot be read, {allowed} may "
            "(DATALOADER.MAX_BROKEN_IMAGES, max_broken of a LazyConfig's build_train_loader, or "
            f"--max-broken, which is a share of all):\n{examples}"
        )
