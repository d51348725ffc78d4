"""Records selected from columns equal those that Detectron2 selects from a list."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.samplers import RepeatFactorTrainingSampler

from swinv2_backbone.d2.data.loading.loader import TrainLoader
from swinv2_backbone.d2.data.loading.selection import get_records
from swinv2_backbone.d2.data.storage.columns import columns_of
from swinv2_backbone.d2.data.storage.records import Images, Records, record_arrays

SIZES = [(10, 20), (20, 10), (15, 15), (30, 40), (40, 30)]
SQUARE = [1, 2, 5, 2, 5, 8, 1, 8]


@pytest.fixture
def records():
    """Five images: two without objects, one of which has a crowd."""
    entries = [
        {
            "image_id": image,
            "category_id": number % 3,
            "bbox": [1, 2, 4, 6],
            "iscrowd": int(image == 3),
            "segmentation": [SQUARE],
        }
        for number, image in enumerate([0, 0, 1, 3, 4, 4, 4])
    ]
    images = Images(list(range(5)), [f"{number}.jpg" for number in range(5)], np.array(SIZES))
    columns = columns_of(entries, images.rows, {0: 0, 1: 1, 2: 2})
    found = Records("photos", record_arrays(images, [columns]))
    DatasetCatalog.register("in_columns", lambda: found)
    DatasetCatalog.register("in_a_list", lambda: list(found))
    for name in ("in_columns", "in_a_list"):
        MetadataCatalog.get(name).thing_classes = ["a", "b", "c"]
    yield found
    for name in ("in_columns", "in_a_list"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("filter_empty", [True, False])
def test_the_same_images_are_selected(records, filter_empty):
    found = get_records("in_columns", filter_empty)
    assert isinstance(found, Records)
    expected = get_detection_dataset_dicts("in_a_list", filter_empty)
    assert list(found) == list(get_records("in_a_list", filter_empty)) == expected
    # Code that calls Detectron2's function gets the same from columns.
    assert get_detection_dataset_dicts("in_columns", filter_empty) == expected
    assert len(expected) == (3 if filter_empty else 5)


def test_several_datasets_are_joined(records):
    found = get_records(["in_columns", "in_a_list"])
    assert found == get_detection_dataset_dicts(["in_a_list", "in_a_list"])


def test_a_dataset_without_objects_is_refused(records, monkeypatch):
    none = records.select(records.object_counts() == 0)
    monkeypatch.setitem(DatasetCatalog.data, "in_columns", lambda: none)
    with pytest.raises(ValueError, match="in_columns has no image with objects"):
        get_records("in_columns")


def test_both_give_the_same_batches(records):
    def first_batches(dataset):
        loader = TrainLoader(dataset, dict, total_batch_size=2, seed=3)
        return [[one["image_id"] for one in batch] for batch, _ in zip(loader, range(8))]

    assert first_batches(records) == first_batches(list(records))


def test_classes_alone_give_the_same_repeat_factors(records):
    def factors(dataset):
        of = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency
        return of(dataset, 0.9).tolist()

    assert factors(list(records.with_classes_only())) == factors(list(records))
