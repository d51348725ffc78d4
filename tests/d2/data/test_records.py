"""Records built from columns equal those that Detectron2 loads from the file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from detectron2.data.datasets.coco import load_coco_json
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.data.storage.columns import (
    columns_of,
    polygon_areas,
    polygon_boxes,
)
from swinv2_backbone.d2.data.storage.records import (
    Images,
    Records,
    load_arrays,
    record_arrays,
    save_arrays,
)

SQUARE = [1, 2, 5, 2, 5, 8, 1, 8]
TRIANGLE = [0.5, 0.25, 9.75, 3.5, 2, 7]


def annotation(number, image, **changes):
    found = {"id": number, "image_id": image, "category_id": 7, "bbox": [1, 2, 4, 6], "iscrowd": 0}
    return found | {"segmentation": [SQUARE]} | changes


def rle(counts):
    return {"size": [10, 12], "counts": counts}


def compressed():
    mask = np.zeros((10, 12), np.uint8, order="F")
    mask[2:5, 3:9] = 1
    return rle(coco_mask.encode(mask)["counts"].decode())


CONTENT = {
    "images": [{"id": i, "file_name": f"ä{i}.jpg", "height": 10, "width": 12} for i in (30, 1, 2)],
    "categories": [{"id": i, "name": f"class {i}"} for i in (7, 90, 3)],
    "annotations": [
        annotation(1, 2, segmentation=[TRIANGLE, SQUARE], bbox=[0.5, 0.25, 9.25, 7.75]),
        annotation(2, 30, segmentation=rle([33, 5, 82]), iscrowd=1),
        annotation(3, 2, category_id=90),
        annotation(4, 30, segmentation=[SQUARE, TRIANGLE, SQUARE]),
        annotation(5, 2, segmentation=compressed(), category_id=3),
        annotation(6, 30),
    ],
}


@pytest.fixture
def content():
    return json.loads(json.dumps(CONTENT))


def made_from(content, pieces=2):
    """Make records from a content whose annotations come in ``pieces``."""
    images = Images(
        [entry["id"] for entry in content["images"]],
        [entry["file_name"] for entry in content["images"]],
        np.array([(entry["height"], entry["width"]) for entry in content["images"]]),
    )
    classes = {key: row for row, key in enumerate(sorted(c["id"] for c in content["categories"]))}
    parts = [
        columns_of(part.tolist(), images.rows, classes)
        for part in np.array_split(np.array(content["annotations"], object), pieces)
    ]
    return Records("photos", record_arrays(images, parts))


def loaded_by_detectron2(content, folder):
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    records = load_coco_json(str(path), "photos", "records_of_detectron2")
    for one in (one for record in records for one in record["annotations"]):
        mask = one.get("segmentation")
        if isinstance(mask, dict) and isinstance(mask["counts"], str):
            mask["counts"] = mask["counts"].encode()  # as it writes those that were lists
    return records


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_records_are_those_of_detectron2(content, tmp_path, pieces):
    assert list(made_from(content, pieces)) == loaded_by_detectron2(content, tmp_path)


def test_string_ids_and_boxes_alone(content, tmp_path):
    for entry in content["images"]:
        entry["id"] = f"image {entry['id']}"
    for entry in content["annotations"]:
        entry["image_id"] = f"image {entry['image_id']}"
        entry["segmentation"] = []
    assert list(made_from(content)) == loaded_by_detectron2(content, tmp_path)


def test_keypoints(content, tmp_path):
    content["annotations"][0]["keypoints"] = [1, 2, 2, 0, 0, 0]
    content["annotations"][4]["keypoints"] = [3, 4, 1, 5, 6, 2]
    assert list(made_from(content)) == loaded_by_detectron2(content, tmp_path)


def test_saved_arrays_give_the_same_records(content, tmp_path):
    records = made_from(content)
    save_arrays(records.arrays, tmp_path)
    assert list(Records("photos", load_arrays(tmp_path))) == list(records)


def test_a_record_may_be_changed(content):
    records = made_from(content)
    records[1]["annotations"][0]["bbox"][0] = 99
    assert records[1]["annotations"][0]["bbox"][0] == 0.5


def test_parts_of_the_records(content):
    records = made_from(content)
    everything = list(records)
    assert records[1:] == everything[1:] and records[-1] == everything[-1] and len(records) == 3
    assert records.object_counts().tolist() == [0, 3, 2]
    assert records.sizes().tolist() == [[10, 12]] * 3
    some = records.select(records.object_counts() > 0)
    assert list(some) == everything[1:] and some.object_counts().tolist() == [3, 2]
    assert [
        [(one["category_id"], one["iscrowd"]) for one in record["annotations"]]
        for record in some.with_classes_only()
    ] == [
        [(one["category_id"], one["iscrowd"]) for one in record["annotations"]]
        for record in everything[1:]
    ]


def test_polygons_are_measured(content):
    images, classes = {30: 0, 1: 1, 2: 2}, {3: 0, 7: 1, 90: 2}
    columns = columns_of(content["annotations"], images, classes)
    boxes, areas = polygon_boxes(columns), polygon_areas(columns)
    assert boxes[0].tolist() == [0.5, 0.25, 9.75, 8] and boxes[2].tolist() == [1, 2, 5, 8]
    # The triangle by Heron's formula; the square has 4 x 6 pixels.
    a, b, c = (np.hypot(*d) for d in ((9.25, 3.25), (-7.75, 3.5), (-1.5, -6.75)))
    s = (a + b + c) / 2
    triangle = np.sqrt(s * (s - a) * (s - b) * (s - c))
    assert areas[[0, 2, 3]] == pytest.approx([triangle + 24, 24, triangle + 48])
    assert np.isnan(areas[[1, 4]]).all() and np.isnan(boxes[[1, 4]]).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"bbox": ["1", "2", "3", "4"]},
        {"bbox": [1, 2, 3]},
        {"bbox": None},
        {"segmentation": [["1", "2", "3", "4", "5", "6"]]},
        {"segmentation": [[1, 2, 3, 4, 5, None]]},
        {"segmentation": [[1, 2, 3, 4, 5, 10**400]]},
        {"image_id": [1]},
    ],
)
def test_values_of_other_types_do_not_become_numbers(content, changes):
    content["annotations"][3] |= changes
    assert columns_of(content["annotations"], {}, {}) is None
