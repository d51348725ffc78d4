"""Values of a COCO-format file that have one obvious meaning are mended in a copy, and told."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.data.validation import annotations as coco_annotations
from swinv2_backbone.d2.data.validation import boxes, categories, file_names, ids, images, polygons
from swinv2_backbone.d2.data.validation.coco import LOST_IMAGES, check_coco
from swinv2_backbone.d2.data.validation.polygons import with_holes
from swinv2_backbone.d2.data.validation.report import Report

SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]
OBJECT = {
    "id": 31,
    "image_id": 7,
    "category_id": 9,
    "iscrowd": 0,
    "bbox": [1, 1, 4, 4],
    "area": 16,
    "segmentation": [SQUARE],
}
OTHER = OBJECT | {"id": 32, "image_id": 8}
CATEGORIES = [{"id": 9, "name": "fig"}, {"id": 4, "name": "date"}]
IMAGES = [
    {"id": 7, "file_name": "a.png", "height": 8, "width": 10},
    {"id": 8, "file_name": "b.png", "height": 8, "width": 10},
]


def save(folder, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 10), np.uint8)).save(path, format="PNG")


@pytest.fixture
def mend(tmp_path):
    """Runs the check on two images of 8x10 pixels; the file must be usable."""
    save(tmp_path, "a.png", "b.png")

    def run(**how) -> tuple[dict, Report]:
        content, report = checked(tmp_path, **how)
        assert not report.errors, report
        return content, report

    return run


def checked(
    folder, annotations=(OBJECT, OTHER), images=IMAGES, categories=CATEGORIES, **how
) -> tuple[dict, Report]:
    content = {
        "images": list(images),
        "annotations": list(annotations),
        "categories": list(categories),
    }
    before = copy.deepcopy(content)
    how = {"masks": True, "mask_format": "bitmask", "for_evaluation": False} | how
    result = check_coco(content, "some.json", str(folder), **how)
    assert content == before
    return result


def without(key: str) -> dict:
    return {name: value for name, value in OBJECT.items() if name != key}


# ---- Ids


@pytest.mark.parametrize("value", ["7", 7.0, "007", "7.0"])
def test_a_reference_of_another_type_means_the_image_of_that_number(mend, value):
    content, report = mend(annotations=[OBJECT | {"image_id": value}, OTHER])
    assert content["annotations"] == [OBJECT, OTHER]
    assert report.repaired[coco_annotations.REFERENCE].examples == [
        f"annotation 31 (image_id {value!r}, now 7)"
    ]
    assert type(content["annotations"][0]["image_id"]) is int


def test_numbers_refer_to_images_whose_ids_are_texts(mend):
    texts = [entry | {"id": f"{entry['id']:012}"} for entry in IMAGES]
    content, report = mend(images=texts)
    assert [one["image_id"] for one in content["annotations"]] == ["000000000007", "000000000008"]
    assert list(report.repaired) == [coco_annotations.REFERENCE]
    both = [one | {"image_id": f"{one['image_id']:012}"} for one in (OBJECT, OTHER)]
    assert not mend(images=texts, annotations=both)[1].repaired


@pytest.mark.parametrize("value", [8.0, "8"])
def test_image_ids_become_numbers_if_some_are(mend, value):
    content, report = mend(images=[IMAGES[0], IMAGES[1] | {"id": value}])
    assert content["images"] == IMAGES
    assert report.repaired[ids.ID_TYPE].examples == [f"images {value!r} (now 8)"]


def test_ids_that_would_become_the_same_number_stay_an_error(tmp_path):
    save(tmp_path, "a.png", "b.png")
    _, report = checked(tmp_path, images=[IMAGES[0], IMAGES[1] | {"id": "7"}])
    assert images.MIXED_IDS in report.errors


@pytest.mark.parametrize("value", ["9", 9.0, "fig"])
def test_category_ids_may_be_texts_floats_or_names(mend, value):
    content, report = mend(annotations=[OBJECT | {"category_id": value}, OTHER])
    assert content["annotations"] == [OBJECT, OTHER]
    assert list(report.repaired) == [coco_annotations.REFERENCE]


def test_categories_with_texts_as_ids_are_numbered_alike_everywhere(mend):
    texts = [entry | {"id": str(entry["id"])} for entry in CATEGORIES]
    annotations = [OBJECT | {"category_id": "9"}, OTHER | {"category_id": "9"}]
    content, report = mend(categories=texts, annotations=annotations)
    assert content["categories"] == CATEGORIES
    assert content["annotations"] == [OBJECT, OTHER]
    assert report.repaired[ids.ID_TYPE].count == 2


def test_categories_whose_ids_are_no_numbers_are_named(tmp_path):
    save(tmp_path, "a.png", "b.png")
    _, report = checked(tmp_path, categories=[*CATEGORIES, {"id": "x1", "name": "nut"}])
    assert report.errors[categories.TEXT_ID].examples == ["'x1' (nut)"]


@pytest.mark.parametrize(
    "number", [1 << 63, (1 << 64) - 1, -(1 << 63) - 1, 2.0**63, 2.0**100, 1.5, True], ids=repr
)
def test_ids_that_no_column_can_hold_are_named(tmp_path, number):
    save(tmp_path, "a.png", "b.png")
    entries = [IMAGES[0] | {"id": number}, IMAGES[1]]
    _, report = checked(tmp_path, [OBJECT | {"image_id": number}, OTHER], entries)
    assert report.errors[images.NO_NUMBER].examples == [f"{number!r:.40} (a.png)"]
    assert not report.repaired
    if number is not True:
        nut = {"id": number, "name": "nut"}
        _, report = checked(
            tmp_path, [OBJECT | {"category_id": number}], categories=[*CATEGORIES, nut]
        )
        assert report.errors[categories.TEXT_ID].examples == [f"{number!r:.40} (nut)"]
        assert len(report.errors) == 1  # not also an unknown category


def test_a_file_named_in_two_ways_is_listed_twice(tmp_path):
    save(tmp_path, "a.png", "b.png")
    again = IMAGES[0] | {"id": 9, "file_name": "./a.png"}
    _, report = checked(tmp_path, images=[*IMAGES, again])
    assert report.errors[images.FILE_TWICE].examples == ["a.png"]


@pytest.mark.parametrize("number", [1 << 63, (1 << 64) - 1, 2.0**64], ids=repr)
def test_annotation_ids_that_no_column_can_hold_are_replaced(mend, number):
    """orjson reads integers up to 2^64 - 1, larger ones as floats."""
    largest = (1 << 63) - 1
    content, _ = mend(annotations=[OBJECT | {"id": number}, OTHER | {"id": largest}])
    assert [one["id"] for one in content["annotations"]] == [0, largest]


def test_an_id_of_nineteen_digits_may_be_a_text(mend):
    number = 1_700_000_000_000_000_000  # a time in nanoseconds
    entries = [IMAGES[0] | {"id": str(number)}, IMAGES[1]]
    content, _ = mend(annotations=[OBJECT | {"image_id": number}, OTHER], images=entries)
    assert [one["image_id"] for one in content["annotations"]] == [number, IMAGES[1]["id"]]


def test_the_largest_ids_are_kept(mend):
    number = (1 << 63) - 1
    entries = [IMAGES[0] | {"id": number}, IMAGES[1]]
    _, report = mend(annotations=[OBJECT | {"image_id": number}, OTHER], images=entries)
    assert not report.repaired


ROOT = {"id": 0, "name": "fruit", "supercategory": "none"}
BELOW = [entry | {"supercategory": "fruit"} for entry in CATEGORIES]


def test_roboflows_root_is_dropped(mend):
    content, report = mend(categories=[ROOT, *BELOW])
    assert content["categories"] == BELOW
    assert report.repaired[categories.ROOT].examples == ["fruit (id 0)"]


@pytest.mark.parametrize(
    ("entries", "annotations"),
    [
        ([ROOT, *BELOW], [OBJECT, OTHER | {"category_id": 0}]),
        ([ROOT, *BELOW], [OBJECT, OTHER | {"category_id": "0"}]),
        ([ROOT, BELOW[0], CATEGORIES[1]], [OBJECT]),
        ([ROOT | {"id": 5}, *BELOW], [OBJECT]),
        ([ROOT | {"supercategory": "food"}, *BELOW], [OBJECT]),
        ([ROOT], [OBJECT | {"category_id": 0}]),
    ],
)
def test_a_class_like_any_other_is_no_root(mend, entries, annotations):
    content, report = mend(categories=entries, annotations=annotations)
    assert content["categories"] == entries and categories.ROOT not in report.repaired


def test_annotations_that_a_split_left_behind_are_dropped(mend):
    lost = [OBJECT | {"id": n, "image_id": n} for n in range(100, 140)]
    content, report = mend(annotations=[OBJECT, *lost, OTHER])
    assert content["annotations"] == [OBJECT, OTHER]
    finding = report.repaired[coco_annotations.UNKNOWN_IMAGE]
    assert finding.count == 40 and finding.examples[0] == "annotation 100 (image_id 100)"


def test_a_mix_up_of_image_ids_is_an_error(tmp_path):
    save(tmp_path, "a.png", "b.png")
    lost = [OBJECT | {"id": n, "image_id": n} for n in range(100, 140)]
    _, report = checked(tmp_path, annotations=lost)
    assert report.errors[LOST_IMAGES].count == 40
    anew = [entry | {"id": number} for number, entry in enumerate(IMAGES)]
    known = [OBJECT | {"image_id": 0}, OTHER | {"image_id": 1}]
    _, report = checked(tmp_path, images=anew, annotations=[*known, *lost])
    assert report.errors[LOST_IMAGES].count == 40
    _, report = checked(tmp_path, images=anew, annotations=[*known, lost[0]])
    assert not report.errors and coco_annotations.UNKNOWN_IMAGE in report.repaired


def test_exact_copies_are_dropped_and_near_ones_kept(mend):
    copies = [OBJECT | {"id": 40}, OBJECT, OBJECT | {"id": 41, "area": 17}]
    content, report = mend(annotations=[OBJECT, *copies])
    assert content["annotations"] == [OBJECT, copies[2]]
    assert report.repaired[ids.COPY].count == 2 and list(report.repaired) == [ids.COPY]


# ---- Boxes, masks and areas


@pytest.mark.parametrize(
    "absent", [without("bbox"), OBJECT | {"bbox": None}, OBJECT | {"bbox": []}]
)
def test_boxes_are_computed_from_masks(mend, absent):
    content, report = mend(annotations=[absent, OTHER])
    assert content["annotations"] == [OBJECT, OTHER] and list(report.repaired) == [boxes.NEW_BOX]
    rle = {"size": [8, 10], "counts": [9, 2, 69]}
    content, _ = mend(annotations=[absent | {"segmentation": rle}, OTHER])
    assert content["annotations"][0]["bbox"] == [1, 1, 1, 2]


@pytest.mark.parametrize("mask", [None, [], "damaged", [[1, 1]]])
def test_a_box_without_a_mask_to_compute_it_from_is_missing(tmp_path, mask):
    save(tmp_path, "a.png", "b.png")
    faulty = without("bbox") | {"segmentation": mask}
    _, report = checked(tmp_path, annotations=[faulty, OTHER], masks=False)
    assert "no bbox, and no mask" in report.errors[coco_annotations.INCOMPLETE].examples[0]


POINTS = [[1, 1], [5, 1], [5, 5], [1, 5]]


@pytest.mark.parametrize(
    ("mask", "fault"),
    [
        (SQUARE, polygons.FLAT),
        (POINTS, polygons.POINTS),
        ([POINTS], polygons.POINTS),
        ([[SQUARE]], polygons.NESTED),
        ([[POINTS]], polygons.NESTED),
    ],
)
def test_polygons_are_rewritten_in_cocos_form(mend, mask, fault):
    content, report = mend(annotations=[OBJECT | {"segmentation": mask}, OTHER])
    assert content["annotations"] == [OBJECT, OTHER] and list(report.repaired) == [fault]


def test_null_masks_are_absent_ones(mend):
    null = OBJECT | {"segmentation": None, "area": 0}
    assert not mend(annotations=[null, OTHER], masks=False)[1].repaired
    content, _ = mend(annotations=[null, OTHER], masks=False, for_evaluation=True)
    assert content["annotations"] == [null | {"area": 16}, OTHER]


@pytest.mark.parametrize("area", [0, 0.0, -1, "16"])
def test_areas_of_zero_are_computed_for_evaluation(mend, area):
    content, report = mend(annotations=[OBJECT | {"area": area}, OTHER], for_evaluation=True)
    assert content["annotations"] == [OBJECT, OTHER]
    assert list(report.repaired) == [coco_annotations.NEW_AREA]


RING = [[0, 0, 9, 0, 9, 8, 0, 8], [2, 2, 6, 2, 6, 6, 2, 6], [3, 3, 5, 3, 5, 5, 3, 5]]


def test_holes_are_named_and_subtracted_on_request(mend):
    ring = OBJECT | {"bbox": [0, 0, 9, 8], "segmentation": RING}
    content, report = mend(annotations=[ring, OTHER])
    assert report.notes[coco_annotations.HOLES].count == 1 and not report.repaired
    content, report = mend(annotations=[ring, OTHER], holes="subtract")
    truth = np.zeros((8, 10), np.uint8)
    truth[:, :9] = 1
    truth[2:6, 2:6] = 0
    truth[3:5, 3:5] = 1
    assert (coco_mask.decode(content["annotations"][0]["segmentation"]) == truth).all()
    assert content["annotations"][1] is OTHER
    assert list(report.repaired) == [coco_annotations.HOLES_CUT]


def test_parts_beside_each_other_or_overlapping_are_no_holes():
    for part in ([6, 1, 9, 1, 9, 5], [4, 4, 8, 4, 8, 7], SQUARE):
        assert with_holes([SQUARE, part], 8, 10) is None
    notch = [0, 0, 9, 0, 9, 8, 8, 8, 8, 1, 1, 1, 1, 8, 0, 8]  # an arch around the other part
    assert with_holes([notch, [3, 3, 6, 3, 6, 6]], 8, 10) is None


# ---- Images


NAMES = [
    ("sub\\c.png", "sub/c.png", file_names.BACKSLASH),
    ("C.PNG", "c.png", file_names.CAPITALS),
    ("cafe\u0301.png", "caf\u00e9.png", file_names.CAPITALS),
    ("/data/upload/1/3c6e0b8a-c.png", "c.png", file_names.PREFIX),
    ("/data/upload/1/3c6e0b8a-c.png", "3c6e0b8a-c.png", file_names.PREFIX),
    ("/data/local-files/?d=sets/sub/c.png", "sub/c.png", file_names.PREFIX),
    ("https://host.org/bucket/c%20d.png?key=1", "c d.png", file_names.PREFIX),
    ("C:\\Users\\me\\sub\\c.png", "sub/c.png", file_names.PREFIX),
    ("../images/c.png", "c.png", file_names.PREFIX),
]


@pytest.mark.parametrize(("name", "file", "fault"), NAMES)
def test_files_are_found_under_other_names(mend, tmp_path, name, file, fault):
    save(tmp_path, file)
    content, report = mend(images=[IMAGES[0], IMAGES[1] | {"file_name": name}])
    assert content["images"][1] == IMAGES[1] | {"file_name": file}
    assert list(report.repaired) == [fault]
    assert report.repaired[fault].examples == [f"{name} (now {file})"]


@pytest.mark.parametrize(
    ("names", "files", "fault"),
    [
        (["x/c.png", "y/c.png"], ["c.png"], images.MISSING_FILE),  # which of the two?
        (["c.png", "/y/c.png"], ["c.png"], images.OUTSIDE),  # the other image has it
        (["C.png", "d.png"], ["c.png", "c.PNG", "d.png"], images.MISSING_FILE),
        (["C.png", "c.png"], ["c.png"], images.MISSING_FILE),
    ],
)
def test_a_name_that_may_mean_several_files_is_not_guessed(tmp_path, names, files, fault):
    save(tmp_path, *files)
    entries = [entry | {"file_name": name} for entry, name in zip(IMAGES, names)]
    _, report = checked(tmp_path, images=entries)
    assert list(report.errors) == [fault] and not report.repaired


@pytest.mark.parametrize(
    "size",
    [
        {"height": None, "width": None},
        {"height": 0},
        {"width": "10"},
        {"height": 8.0},
        {"width": -1},
    ],
)
def test_missing_sizes_are_read_from_the_images(mend, size):
    content, report = mend(images=[IMAGES[0], IMAGES[1] | size])
    assert content["images"] == IMAGES and list(report.repaired) == [images.NEW_SIZE]
    assert all(
        type(value) is int for value in (content["images"][1][k] for k in ("height", "width"))
    )


def test_a_missing_image_without_a_size_is_one_error(tmp_path):
    save(tmp_path, "a.png")
    entry = {"id": 8, "file_name": "b.png"}
    _, report = checked(tmp_path, images=[IMAGES[0], entry])
    assert list(report.errors) == [images.MISSING_FILE]


@pytest.mark.parametrize("points", ["none", [1, 2], [1, 2, "v"], [{"x": 1, "y": 2}] * 3, {"a": 1}])
def test_keypoints_that_detectron2_could_not_read_are_dropped(mend, points):
    content, report = mend(annotations=[OBJECT | {"keypoints": points}, OTHER])
    assert list(report.repaired) == [coco_annotations.BAD_KEYPOINTS]
    assert content["annotations"][0]["keypoints"] == []


def test_keypoints_of_the_form_are_kept(mend):
    _, report = mend(annotations=[OBJECT | {"keypoints": [1, 2, 2, 0, 0, 0]}, OTHER])
    assert not report.repaired
