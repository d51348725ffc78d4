"""Crowds: told in every report, and stopped where an exporter made them of single objects."""

from __future__ import annotations

import numpy as np
import pytest
from coco_sets import SOUND, SetMaker, report_on
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.data.validation.annotations import OBJECTS
from swinv2_backbone.d2.data.validation.coco import check_coco
from swinv2_backbone.d2.data.validation.crowds import (
    CROWDS,
    POLYGONS,
    RLE,
    TOO_MANY_CROWDS,
    UNMASKED,
    check_crowds,
)
from swinv2_backbone.d2.data.validation.report import Report

NAMES = {1: "fig", 2: "date", 3: "nut"}


def report(*groups: tuple[int, int, int, int], mode: str = "check") -> Report:
    """The report on groups of (category, crowds, objects, form of the crowds)."""
    found = Report("some.json")
    category, crowd, form = [], [], []
    for number, crowds, objects, of_crowds in groups:
        category += [number] * (crowds + objects)
        crowd += [True] * crowds + [False] * objects
        form += [of_crowds] * crowds + [POLYGONS] * objects
    columns = (np.array(values) for values in (category, crowd, form))
    check_crowds(found, *columns, NAMES, mode=mode)
    return found


def test_the_share_of_crowds_is_told_in_all_by_class_and_by_form():
    found = report((1, 3, 147, RLE), (2, 1, 9, POLYGONS), (3, 0, 40, RLE))
    assert not found.errors
    assert found.notes[CROWDS].count == 4
    assert found.notes[CROWDS].examples == [
        "in all 4 of 200 (2.0%: 1 as polygons, 3 as RLE)",
        "date 1 of 10 (10.0%: 1 as polygons)",
        "fig 3 of 150 (2.0%: 3 as RLE)",
    ]
    assert "DATASETS.CUSTOM.CROWDS objects" in str(found)
    assert str(report((1, 0, 9, RLE))) == "some.json: no faults"


@pytest.mark.parametrize("form", [RLE, POLYGONS])
@pytest.mark.parametrize(("crowds", "objects"), [(5, 0), (12, 2), (9, 11), (25, 75), (3000, 9000)])
def test_a_class_of_too_many_crowds_stops_the_training(crowds, objects, form):
    found = report((1, crowds, objects, form), (2, 1, 99, RLE))
    assert found.errors[TOO_MANY_CROWDS].count == crowds and not found.notes
    assert found.errors[TOO_MANY_CROWDS].examples[0].startswith(f"fig {crowds} of")
    words = ["supervision's as_coco", "CVAT's COCO 1.0", "DATASETS.CUSTOM.CROWDS objects"]
    assert [word for word in words if word not in str(found)] == []
    assert not report((1, crowds, objects, form), mode="ignore").errors
    assert not report((1, crowds, objects, form), mode="objects").notes


@pytest.mark.parametrize(
    ("crowds", "objects"),
    [(1, 2), (1, 0), (4, 0), (2, 3), (5, 15), (8, 12), (24, 76), (2900, 9000)],
)
def test_a_share_that_small_honest_sets_have_passes(crowds, objects):
    assert not report((1, crowds, objects, RLE)).errors


def test_crowds_in_many_small_classes_are_added_up():
    found = report((1, 3, 0, RLE), (2, 3, 0, RLE), (3, 2, 1, RLE))
    assert found.errors[TOO_MANY_CROWDS].count == 8


def test_boxes_of_groups_without_masks_pass():
    assert not report((1, 60, 40, UNMASKED)).errors


def test_crowds_of_honest_sets_stop_nothing():
    """No false alarm: classes of any size, with up to 5 % of crowds that stand in few images."""
    rng = np.random.default_rng(0)
    stopped = 0
    for _ in range(60):
        groups = []
        for category in range(1, 81):
            total = int(np.exp(rng.uniform(0, 8)))
            share = rng.choice([0.01, 0.01, 0.01, 0.05])
            crowds = rng.binomial(total, share)
            groups.append((category, crowds, total - crowds, RLE))
        stopped += TOO_MANY_CROWDS in report(*groups).errors
    assert stopped == 0


@pytest.mark.parametrize("seed", range(5))
def test_objects_in_two_parts_written_as_crowds_are_found_and_read_as_objects(seed):
    made = SetMaker(seed, classes=2)
    for _ in range(14):
        image = made.image()
        while not made.rle(image, blobs=2, iscrowd=1, category_id=1):
            pass
    made.polygon(made.image(), category_id=1)
    content = made.content()
    found = report_on(content)
    assert list(found.errors) == [TOO_MANY_CROWDS]
    found = report_on(content, crowds="objects")
    assert not found.errors and found.repaired[OBJECTS].count == 14


def test_masks_of_objects_stay_as_they_are_to_the_pixel(tmp_path):
    content = SOUND["RLE only"](0)
    for one in content["annotations"]:
        one["iscrowd"] = 1
    content["images"] = content["images"][:0]
    content["annotations"] = [one | {"image_id": 1} for one in content["annotations"][:1]]
    rle = content["annotations"][0]["segmentation"]
    content["images"] = [
        {"id": 1, "file_name": "a.png", "height": rle["size"][0], "width": rle["size"][1]}
    ]
    how = {"masks": True, "mask_format": "bitmask", "for_evaluation": False, "crowds": "objects"}
    mended, _ = check_coco(content, "some.json", str(tmp_path), **how)
    (one,) = mended["annotations"]
    assert one["iscrowd"] == 0
    assert (coco_mask.decode(one["segmentation"]) == coco_mask.decode(rle)).all()
