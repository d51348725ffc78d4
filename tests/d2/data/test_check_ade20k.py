"""ADE20K's images and prepared labels are checked before a training."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from ade20k_files import SHAPE, SPLITS, draw, truncate, write, write_ade20k
from detectron2.data import MetadataCatalog

from swinv2_backbone.d2.data.datasets.ade20k import prepare
from swinv2_backbone.d2.data.validation.ade20k import check_ade20k, evenly_spaced


@pytest.fixture
def root(tmp_path) -> Path:
    return write_ade20k(tmp_path)


@pytest.fixture
def registered(root):
    """Detectron2's own two datasets, moved to the images of `root`."""
    names = {"ade20k_sem_seg_train": "training", "ade20k_sem_seg_val": "validation"}
    before = {name: MetadataCatalog.get(name).as_dict() for name in names}
    for name, split in names.items():
        MetadataCatalog.pop(name)
        MetadataCatalog.get(name).set(
            image_root=str(root / "images" / split),
            sem_seg_root=str(root / "annotations_detectron2" / split),
        )
    yield list(names)
    for name, values in before.items():
        MetadataCatalog.pop(name)
        values.pop("name", None)
        MetadataCatalog.get(name).set(**values)


def test_prepared_datasets_pass_the_check(root, registered):
    prepare(root)
    check_ade20k(registered)


def test_other_datasets_are_not_looked_at():
    check_ade20k(["coco_2017_val", "a_name_that_nobody_registered"])


def test_missing_images_are_reported_with_the_path_and_the_variable(root, registered):
    prepare(root)
    shutil.rmtree(root / "images" / "validation")
    check_ade20k(registered[:1])
    with pytest.raises(ValueError, match=f"{root / 'images/validation'}; .*DETECTRON2_DATASETS"):
        check_ade20k(registered)


@pytest.mark.parametrize("lost", [["ADE_1"], ["ADE_0", "ADE_1", "ADE_2"]])
def test_missing_labels_are_counted_and_the_remedy_named(root, registered, lost):
    prepare(root)
    for name in lost:
        (root / "annotations_detectron2" / "training" / f"{name}.png").unlink()
    message = f"{len(lost)} of 3 images .*{lost[0]}.png; run swinv2 prepare-ade20k {root}"
    with pytest.raises(ValueError, match=message):
        check_ade20k(registered)


def test_no_label_folder_at_all_names_the_remedy(root, registered):
    with pytest.raises(ValueError, match=f"3 of 3 images .*swinv2 prepare-ade20k {root}"):
        check_ade20k(registered)


def copy_unprepared(root: Path, high: int) -> None:
    """Labels 0 to `high`, the same before and after an alleged preparation."""
    for split in SPLITS:
        for i in range(3):
            for folder in ("annotations", "annotations_detectron2"):
                write(root / folder / split / f"ADE_{i}.png", draw(i, high=high))


@pytest.mark.parametrize("high", [150, 40])
def test_labels_that_are_the_downloaded_ones_are_found(root, registered, high):
    copy_unprepared(root, high)
    message = f"not the prepared ones.*swinv2 prepare-ade20k --overwrite {root}"
    with pytest.raises(ValueError, match=message):
        check_ade20k(registered)


def add_labels(root: Path, count: int, high: int) -> None:
    """Images to train with, whose labels lie in the folder for prepared ones."""
    for i in range(count):
        write(root / "images" / "training" / f"ADE_{i}.jpg", np.zeros((*SHAPE, 3), np.uint8))
        write(root / "annotations_detectron2" / "training" / f"ADE_{i}.png", draw(i, high=high))
    shutil.rmtree(root / "annotations")


@pytest.mark.parametrize(("count", "high"), [(30, 40), (3, 150)])
def test_unprepared_labels_are_found_without_their_sources_too(root, registered, count, high):
    add_labels(root, count, high)
    with pytest.raises(ValueError, match="not the prepared ones"):
        check_ade20k(registered[:1])


def test_one_ignored_pixel_among_many_files_shows_that_they_are_prepared(root, registered):
    add_labels(root, 30, high=40)
    labels = draw(29, high=40)
    labels[4, 4] = 255
    write(root / "annotations_detectron2" / "training" / "ADE_0.png", labels)
    check_ade20k(registered[:1])


def test_few_labels_without_ignored_pixels_pass_the_check(root, registered):
    for i in range(3):
        write(root / "annotations" / "training" / f"ADE_{i}.png", draw(i, low=1))
    prepare(root)
    check_ade20k(registered)


def test_a_label_file_that_is_damaged_is_named_by_the_check(root, registered):
    prepare(root)
    truncate(root / "annotations_detectron2" / "training" / "ADE_0.png")
    with pytest.raises(ValueError, match="training/ADE_0.png is not a PNG file, or only part of"):
        check_ade20k(registered)


@pytest.mark.parametrize(("items", "expected"), [(3, [0, 1, 2]), (41, list(range(0, 41, 2)))])
def test_samples_are_spread_from_the_first_file_to_the_last(items, expected):
    assert evenly_spaced(range(items), 21) == expected


@pytest.mark.slow
def test_the_check_of_a_full_dataset_takes_less_than_a_second(root, registered):
    picture = root / "images" / "training" / "ADE_0.jpg"
    labels = root / "annotations_detectron2" / "training"
    write(labels / "ADE_0.png", np.full((512, 683), 255, np.uint8))
    for i in range(20_000):
        os.link(picture, picture.with_name(f"A_{i:05d}.jpg"))
        os.link(labels / "ADE_0.png", labels / f"A_{i:05d}.png")
    for i in (1, 2):
        os.link(labels / "ADE_0.png", labels / f"ADE_{i}.png")
    start = time.process_time()  # of this process alone, however busy the machine is
    check_ade20k(registered[:1])
    assert time.process_time() - start < 1
