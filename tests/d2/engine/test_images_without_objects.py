"""Trainings over images without objects, which a detector needs against false alarms."""

from __future__ import annotations

import detectron2.data.transforms as T
import pytest
import small_training
from detectron2.config import LazyCall as L
from small_training import config, lazy_training, train

IMAGES, EPOCH = 20, 10  # of two images each


@pytest.fixture(scope="module", autouse=True)
def records(tmp_path_factory):
    """One image of twenty has no objects, and one has crowds alone."""
    found = small_training.register(tmp_path_factory.mktemp("images"), IMAGES)
    found[3]["annotations"] = []
    for one in found[8]["annotations"]:
        one["iscrowd"] = 1
    yield found
    small_training.forget()


def yacs(folder, **more):
    return config(folder, EPOCH, EPOCH, DATALOADER__FILTER_EMPTY_ANNOTATIONS=False, **more)


def lazy(folder, *crop):
    cfg = lazy_training(folder, EPOCH, EPOCH)
    cfg.dataloader.train.dataset.filter_empty = False
    mapper = cfg.dataloader.train.mapper
    mapper.augmentations = [*crop, *mapper.augmentations]
    mapper.recompute_boxes = True
    return cfg


CROP = {"INPUT__CROP__ENABLED": True, "INPUT__CROP__SIZE": [0.5, 0.5]}
JITTER = {"INPUT__LSJ__ENABLED": True, "INPUT__LSJ__SIZE": 64}
TRAININGS = {
    "crop": lambda folder: yacs(folder, **CROP),
    "jitter, bitmaps": lambda folder: yacs(folder, INPUT__MASK_FORMAT="bitmask", **JITTER),
    "boxes alone": lambda folder: yacs(folder, MODEL__MASK_ON=False),
    "lazy crop": lambda folder: lazy(
        folder, L(T.RandomCrop)(crop_type="relative_range", crop_size=[0.5, 0.5])
    ),
}


@pytest.mark.parametrize("training", TRAININGS)
def test_an_epoch_passes(training, tmp_path, records):
    losses = train(TRAININGS[training](tmp_path))
    assert len(losses) == EPOCH and all(loss > 0 for loss in losses.values())
