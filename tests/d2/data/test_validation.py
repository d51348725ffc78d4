"""Every fault of a COCO-format file is found, with its place; what can be repaired is repaired."""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.data.validation import annotations as coco_annotations
from swinv2_backbone.d2.data.validation import boxes, ids
from swinv2_backbone.d2.data.validation import categories as coco_categories
from swinv2_backbone.d2.data.validation import coco as checks
from swinv2_backbone.d2.data.validation import images as coco_images
from swinv2_backbone.d2.data.validation import masks as coco_masks
from swinv2_backbone.d2.data.validation.coco import check_coco
from swinv2_backbone.d2.data.validation.report import EXAMPLES, Fault
from swinv2_backbone.images.headers import Header

SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]
RLE = {"size": [8, 10], "counts": [9, 2, 69]}
OBJECT = {
    "id": 31,
    "image_id": 7,
    "category_id": 9,
    "iscrowd": 0,
    "bbox": [1, 1, 4, 4],
    "area": 16,
    "segmentation": [SQUARE],
}
CATEGORIES = [{"id": 9, "name": "fig"}, {"id": 4, "name": "date"}]
IMAGES = [
    {"id": 7, "file_name": "a.png", "height": 8, "width": 10},
    {"id": 8, "file_name": "b.png", "height": 8, "width": 10},
]
IMAGES_HEADER = Header(8, 10, False)


@pytest.fixture
def check(tmp_path):
    """Runs the check on two images of 8x10 pixels."""
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 10, 3), np.uint8))

    def run(annotations=(OBJECT,), images=IMAGES, categories=CATEGORIES, folder=tmp_path, **how):
        content = {"images": images, "annotations": list(annotations), "categories": categories}
        before = copy.deepcopy(content)
        how = {"masks": True, "mask_format": "polygon", "for_evaluation": False} | how
        repaired, report = check_coco(content, "some.json", str(folder), **how)
        assert str(content) == str(before)  # as text, in which NaN equals itself
        assert report.repaired or repaired is content
        return repaired, report

    return run


def test_a_file_without_faults_is_returned_as_it_is(check):
    for for_evaluation in (False, True):
        _, report = check(for_evaluation=for_evaluation)
        assert not report.errors and not report.repaired
        assert "no faults" in str(report)


def without(key: str) -> dict:
    return {name: value for name, value in OBJECT.items() if name != key}


FAULTY_ANNOTATIONS = [
    ("text", coco_annotations.INCOMPLETE, "annotations[0] is not an object"),
    (without("image_id"), coco_annotations.INCOMPLETE, "(id 31) has no image_id"),
    (OBJECT | {"category_id": [9]}, coco_annotations.UNKNOWN_CATEGORY, "31 (category_id [9])"),
    (OBJECT | {"category_id": 1}, coco_annotations.UNKNOWN_CATEGORY, "31 (category_id 1)"),
    (OBJECT | {"ignore": 1}, coco_annotations.IGNORED, "31 in a.png (ignore 1)"),
    (OBJECT | {"iscrowd": -1}, coco_annotations.BAD_CROWD, "31 in a.png (-1)"),
    (OBJECT | {"iscrowd": "0"}, coco_annotations.BAD_CROWD, "31 in a.png ('0')"),
    (OBJECT | {"bbox": [1, 1, 4]}, boxes.BAD_BOX, "[1, 1, 4]"),
    (OBJECT | {"bbox": [1, 1, 4, math.nan]}, boxes.BAD_BOX, "nan"),
    (OBJECT | {"bbox": [1, 1, 4, math.inf]}, boxes.BAD_BOX, "inf"),
    (OBJECT | {"bbox": [1, 1, 4, 10**400]}, boxes.BAD_BOX, "1000000000"),
    (OBJECT | {"bbox": ["1", 1, 4, 4]}, boxes.BAD_BOX, "'1'"),
    (OBJECT | {"bbox": {"x": 1}}, boxes.BAD_BOX, "{'x': 1}"),
    (OBJECT | {"bbox": [10, 1, 4, 4]}, boxes.BOX_OUTSIDE, "[10, 1, 4, 4]"),
    (OBJECT | {"bbox": [1, -9, 4, 4]}, boxes.BOX_OUTSIDE, "[1, -9, 4, 4]"),
    (without("segmentation"), coco_annotations.NO_MASK, "31 in a.png"),
    (OBJECT | {"segmentation": []}, coco_annotations.NO_MASK, "31 in a.png"),
    (OBJECT | {"segmentation": RLE}, coco_annotations.RLE_FOR_POLYGONS, "31 in a.png"),
    (OBJECT | {"segmentation": "mask"}, coco_masks.KIND, "'mask'"),
    (OBJECT | {"segmentation": [SQUARE, 5]}, coco_masks.KIND, "[[1, 1, 5"),
    (OBJECT | {"segmentation": {"size": [8, 10]}}, coco_masks.KIND, "size"),
    (OBJECT | {"segmentation": [[*SQUARE, 3]]}, coco_masks.POLYGON, "9 coordinates"),
    (OBJECT | {"segmentation": [[*SQUARE, 3, math.nan]]}, coco_masks.POLYGON, "not finite"),
    (OBJECT | {"segmentation": [[*SQUARE, 3, None]]}, coco_masks.POLYGON, "not finite"),
    (OBJECT | {"segmentation": [[*SQUARE, 3, 10**400]]}, coco_masks.POLYGON, "not finite"),
    (OBJECT | {"segmentation": [[*SQUARE, 3, 1e9]]}, coco_masks.FAR_POLYGON, "1000000000"),
    (
        OBJECT | {"segmentation": RLE | {"size": [10, 8]}},
        coco_masks.RLE_SIZE,
        "[10, 8] instead of [8, 10]",
    ),
    (
        OBJECT | {"segmentation": RLE | {"counts": [9, 2, 70]}},
        coco_masks.RLE_COUNTS,
        "81 instead of 80",
    ),
    (OBJECT | {"segmentation": RLE | {"counts": [-9, 89]}}, coco_masks.RLE_COUNTS, "[-9, 89]"),
    (OBJECT | {"segmentation": RLE | {"counts": "é"}}, coco_masks.RLE_COUNTS, "'é'"),
    (OBJECT | {"segmentation": RLE | {"counts": None}}, coco_masks.RLE_COUNTS, "None"),
]


@pytest.mark.parametrize(("annotation", "fault", "words"), FAULTY_ANNOTATIONS)
def test_a_faulty_annotation_is_named_with_its_fault(check, annotation, fault, words):
    _, report = check([annotation, OBJECT | {"id": 5, "image_id": 8}])
    assert list(report.errors) == [fault]
    assert report.errors[fault].count == 1
    assert words in report.errors[fault].examples[0]
    assert fault.remedy in str(report) and not report.repaired


FAULTY_IMAGES = [
    ([*IMAGES, 5], coco_annotations.INCOMPLETE, "images[2] is not an object"),
    ([*IMAGES, {"id": 9, "height": 8, "width": 10}], coco_annotations.INCOMPLETE, "no file_name"),
    ([*IMAGES, IMAGES[1] | {"id": 7}], coco_images.IMAGE_ID_TWICE, "7 (b.png)"),
    ([*IMAGES, IMAGES[0] | {"id": 9}], coco_images.FILE_TWICE, "a.png"),
    ([IMAGES[0], IMAGES[1] | {"id": "b"}], coco_images.MIXED_IDS, "7 and 'b'"),
    ([*IMAGES, IMAGES[0] | {"id": 9, "file_name": "c.png"}], coco_images.MISSING_FILE, "c.png"),
    (
        [IMAGES[0], IMAGES[1] | {"width": 8, "height": 10}],
        coco_images.OTHER_SIZE,
        "b.png (10x8, is 8x10)",
    ),
]


@pytest.mark.parametrize("name", ["/etc/hostname", "../other/a.png", "x/../../a.png"])
def test_no_file_outside_the_folder_is_read_unless_allowed(check, name, monkeypatch):
    images = [IMAGES[0], IMAGES[1] | {"file_name": name}]
    looked_at = []
    monkeypatch.setattr(
        coco_images, "header_of", lambda p, _: looked_at.append(str(p)) or IMAGES_HEADER
    )
    _, report = check(images=images)
    assert list(report.errors) == [coco_images.OUTSIDE]
    assert report.errors[coco_images.OUTSIDE].examples == [name]
    assert [Path(path).name for path in looked_at] == ["a.png"]
    _, report = check(images=images, images_outside=True)
    assert not report.errors


@pytest.mark.parametrize(("images", "fault", "words"), FAULTY_IMAGES)
def test_a_faulty_image_is_named_with_its_fault(check, images, fault, words):
    _, report = check(images=images)
    assert list(report.errors) == [fault]
    assert words in report.errors[fault].examples[0]


FAULTY_CATEGORIES = [
    ([{"id": 9}, *CATEGORIES], coco_annotations.INCOMPLETE, "(id 9) has no name"),
    ([*CATEGORIES, {"id": 9, "name": "nut"}], coco_categories.CATEGORY_TWICE, "id 9"),
    ([*CATEGORIES, {"id": 1, "name": "fig"}], coco_categories.CATEGORY_TWICE, "name fig"),
]


@pytest.mark.parametrize(("categories", "fault", "words"), FAULTY_CATEGORIES)
def test_a_faulty_category_is_named_with_its_fault(check, categories, fault, words):
    _, report = check(categories=categories)
    assert list(report.errors) == [fault]
    assert words in report.errors[fault].examples[0]


def test_empty_lists_are_errors(check):
    _, report = check([], images=[], categories=[])
    expected = {coco_images.NO_IMAGES, coco_categories.NO_CATEGORIES, checks.NOTHING_TO_LEARN}
    assert set(report.errors) == expected


def test_training_needs_an_annotation_that_is_not_a_crowd(check):
    crowd = OBJECT | {"iscrowd": 1, "segmentation": RLE}
    assert set(check([crowd])[1].errors) == {checks.NOTHING_TO_LEARN}
    assert set(check([OBJECT | {"bbox": [1, 1, 0, 4]}])[1].errors) == {checks.NOTHING_TO_LEARN}
    assert not check([crowd], for_evaluation=True)[1].errors
    assert not check([], for_evaluation=True)[1].errors


def test_a_missing_folder_is_one_error(check, tmp_path):
    _, report = check(folder=tmp_path / "nowhere")
    assert list(report.errors) == [coco_images.NO_FOLDER]


def test_an_unreadable_image_is_named(check, tmp_path):
    (tmp_path / "b.png").write_bytes(b"not an image")
    _, report = check()
    assert "b.png is damaged" in report.errors[coco_images.UNREADABLE].examples[0]


def test_sizes_stated_before_the_exif_rotation_are_told_from_other_wrong_sizes(check, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.zeros((8, 10), np.uint8)).save(tmp_path / "b.png", exif=exif)
    _, report = check()
    assert list(report.errors) == [coco_images.TURNED]
    assert report.errors[coco_images.TURNED].examples == ["b.png (8x10, is 10x8)"]
    turned = [IMAGES[0], IMAGES[1] | {"height": 10, "width": 8}]
    assert not check(images=turned)[1].errors


def test_all_faults_are_collected_and_counted(check):
    annotations = [OBJECT | {"id": n, "category_id": 1, "bbox": [1]} for n in range(1, 9)]
    _, report = check([*annotations, OBJECT | {"id": 50, "segmentation": [[1, 2, 3]], "bbox": 5}])
    counts = {fault: finding.count for fault, finding in report.errors.items()}
    assert counts == {
        coco_annotations.UNKNOWN_CATEGORY: 8,
        boxes.BAD_BOX: 9,
        coco_masks.POLYGON: 1,
    }
    examples = report.errors[coco_annotations.UNKNOWN_CATEGORY].examples
    assert len(examples) == EXAMPLES and "annotation 5 " in examples[4]


def repaired_in(check, annotations: list[dict], fault: Fault, **how) -> list[dict]:
    """The annotations after the check, which must repair this fault alone."""
    content, report = check(annotations, **how)
    assert not report.errors
    assert list(report.repaired) == [fault]
    return content["annotations"]


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ([-2, 1, 4, 4], [0, 1, 2, 4]),
        ([1, -2, 4, 4], [1, 0, 4, 2]),
        ([6, 1, 9, 4], [6, 1, 4, 4]),
        ([1.5, 6, 4, 9.25], [1.5, 6, 4, 2]),
    ],
)
def test_boxes_partly_outside_are_clipped(check, box, clipped):
    fault = boxes.CLIPPED
    assert repaired_in(check, [OBJECT | {"bbox": box}], fault) == [OBJECT | {"bbox": clipped}]


def test_rounding_at_the_border_is_no_fault(check):
    content, report = check([OBJECT | {"bbox": [6.01, 1, 4, 7.01]}])
    assert not report.repaired and content["annotations"][0]["bbox"] == [6.01, 1, 4, 7.01]


def test_boxes_without_an_area_are_left_out(check):
    empty = [OBJECT | {"id": 1, "bbox": [1, 1, 0, 4]}, OBJECT | {"id": 2, "bbox": [5, 5, 2, -1]}]
    fault = boxes.EMPTY_BOX
    assert repaired_in(check, [*empty, OBJECT], fault) == [OBJECT]


def test_polygons_of_two_points_are_left_out(check):
    annotation = OBJECT | {"segmentation": [[1, 1, 3, 3], SQUARE, []]}
    assert repaired_in(check, [annotation], coco_annotations.SHORT) == [OBJECT]


def test_an_annotation_without_a_whole_polygon_is_left_out_if_masks_are_needed(check):
    short = OBJECT | {"id": 1, "segmentation": [[1, 1, 3, 3]]}
    for for_evaluation in (False, True):
        how = {"for_evaluation": for_evaluation}
        assert repaired_in(check, [short, OBJECT], coco_annotations.EMPTY_MASK, **how) == [OBJECT]
    kept = repaired_in(check, [short, OBJECT], coco_annotations.SHORT, masks=False)
    assert kept == [short | {"segmentation": []}, OBJECT]


def test_faulty_masks_do_not_hinder_a_model_without_masks(check):
    faulty = OBJECT | {"segmentation": RLE | {"size": [10, 8]}}
    kept = repaired_in(check, [faulty], coco_annotations.UNUSED_MASK, masks=False)
    assert kept == [OBJECT | {"segmentation": []}]
    assert not check([without("segmentation")], masks=False)[1].errors


def test_ids_become_distinct_and_those_that_are_good_stay(check):
    unnumbered = without("id")
    annotations = [OBJECT, OBJECT, unnumbered, OBJECT | {"id": "x"}, OBJECT | {"id": 2}]
    annotations = [one | {"score": number} for number, one in enumerate(annotations)]
    kept = repaired_in(check, annotations, ids.NEW_ID)
    assert [annotation["id"] for annotation in kept] == [31, 32, 33, 34, 2]


def test_id_zero_is_replaced_for_evaluation_alone(check):
    assert not check([OBJECT | {"id": 0}])[1].repaired
    how = {"for_evaluation": True}
    (annotation,) = repaired_in(check, [OBJECT | {"id": 0}], ids.NEW_ID, **how)
    assert annotation["id"] == 1


def test_iscrowd_is_added_where_it_is_read(check):
    how = {"for_evaluation": True}
    assert repaired_in(check, [without("iscrowd")], coco_annotations.NEW_CROWD, **how) == [OBJECT]
    assert not check([without("iscrowd")])[1].repaired
    # Detectron2 takes null for a crowd.
    null = OBJECT | {"iscrowd": None}
    assert repaired_in(check, [null], coco_annotations.NEW_CROWD) == [OBJECT]


@pytest.mark.parametrize(
    ("annotation", "area"),
    [
        (without("area"), 16),
        (OBJECT | {"area": math.nan}, 16),
        (without("area") | {"segmentation": RLE}, 2),
        (without("area") | {"segmentation": [], "bbox": [6, 1, 3, 2.5]}, 7.5),
    ],
)
def test_areas_are_added_for_evaluation(check, annotation, area):
    masks = bool(annotation["segmentation"])
    how = {"for_evaluation": True, "masks": masks}
    (kept,) = repaired_in(check, [annotation], coco_annotations.NEW_AREA, **how)
    assert kept["area"] == area
    assert not check([annotation], masks=masks, mask_format="bitmask")[1].repaired


def test_no_area_is_computed_from_a_faulty_mask(check):
    faulty = without("area") | {"segmentation": RLE | {"counts": "damaged"}}
    _, report = check([faulty], for_evaluation=True)
    assert list(report.errors) == [coco_masks.RLE_COUNTS] and not report.repaired


def test_crowds_may_be_rle_beside_polygons(check):
    compressed = coco_mask.frPyObjects(RLE, 8, 10)
    compressed = {"size": [8, 10], "counts": compressed["counts"].decode()}
    crowds = [
        OBJECT | {"id": 1, "iscrowd": 1, "segmentation": RLE},
        OBJECT | {"id": 2, "iscrowd": 1, "segmentation": compressed},
    ]
    for for_evaluation in (False, True):
        _, report = check([OBJECT, *crowds], for_evaluation=for_evaluation)
        assert not report.errors and not report.repaired


def test_crowds_need_a_mask_for_evaluation_alone(check):
    crowd = without("segmentation") | {"id": 1, "iscrowd": 1}
    assert not check([OBJECT, crowd])[1].errors
    _, report = check([OBJECT, crowd], for_evaluation=True)
    assert list(report.errors) == [coco_annotations.NO_MASK]


@pytest.mark.slow
def test_a_hundred_thousand_annotations_take_seconds(check):
    annotations = [OBJECT | {"id": number} for number in range(1, 100_001)]
    start = time.process_time()
    _, report = check_coco(
        {"images": IMAGES, "annotations": annotations, "categories": CATEGORIES},
        "some.json",
        "nowhere",
        masks=True,
        mask_format="polygon",
        for_evaluation=False,
    )
    assert time.process_time() - start < 10
    assert list(report.errors) == [coco_images.NO_FOLDER]


# ---- Anything at all

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*OBJECT, "x"]), inner)
    ),
    max_leaves=8,
)
NUMBER = st.sampled_from([math.nan, math.inf, 1, 4, 7]) | st.integers(-2, 12) | st.floats()
NEARLY = {
    "bbox": st.tuples(NUMBER, NUMBER, NUMBER, NUMBER).map(list),
    "segmentation": st.lists(st.lists(NUMBER, min_size=5, max_size=8), max_size=2),
    "iscrowd": st.integers(-1, 2),
    "category_id": st.sampled_from([4, 9, 5]),
}  # much like what is right


def changed(key: str) -> st.SearchStrategy[dict]:
    """The object with another value at one key, since one fault hides the next."""
    return (NEARLY.get(key, VALUES) | VALUES).map(lambda value: OBJECT | {key: value})


ANNOTATIONS = st.sampled_from(["bbox", "segmentation", *OBJECT]).flatmap(changed)


@given(
    annotations=st.lists(ANNOTATIONS, min_size=1, max_size=1) | st.lists(VALUES, max_size=3),
    for_evaluation=st.booleans(),
    masks=st.booleans(),
    mask_format=st.sampled_from(["polygon", "bitmask"]),
)
@settings(
    max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_whatever_is_in_a_file_it_is_reported_or_usable(
    check, annotations, for_evaluation, masks, mask_format
):
    how = {"for_evaluation": for_evaluation, "masks": masks, "mask_format": mask_format}
    repaired, report = check(annotations=annotations, **how)
    if report.errors:
        assert str(report)
        return
    for one in repaired["annotations"]:
        assert one["image_id"] in (7, 8) and one["category_id"] in (9, 4)
        assert all(math.isfinite(number) for number in one["bbox"])
