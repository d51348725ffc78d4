"""Every format of annotations: found by itself, and read to the pixel."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from scenes import boxes_of, forms, image_names, masks_of, scene, true_boxes, true_masks

from swinv2_backbone.d2.data.formats import FORMATS, Source, convert
from swinv2_backbone.d2.data.validation.coco import check_coco


@dataclass(frozen=True)
class Case:
    """A form of the scene: its format, and what it can hold."""

    write: object
    format: str
    masks: bool = True
    subset: str = ""
    images: bool = False  # the folder of images must be given


CASES = {
    "coco": Case(forms.coco, "coco"),
    "roboflow": Case(forms.roboflow, "roboflow"),
    "voc": Case(forms.voc, "voc", masks=False),
    "voc from 0": Case(partial(forms.voc, first=0), "voc", masks=False),
    "voc masks": Case(forms.voc_masks, "voc_masks"),
    "voc masks in colors": Case(partial(forms.voc_masks, colors=True), "voc_masks"),
    "labelme": Case(forms.labelme, "labelme"),
    "cvat": Case(forms.cvat, "cvat"),
    "label studio brush": Case(forms.label_studio, "label_studio", images=True),
    "yolo boxes": Case(partial(forms.yolo, polygons=False), "yolo", masks=False, subset="train"),
    "instances": Case(partial(forms.instances, by_class=True), "instances", images=True),
    "panoptic": Case(forms.panoptic, "panoptic", images=True),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request) -> Case:
    return request.param


def read(case: Case, folder: Path):
    path, images = case.write(folder)
    return convert(Source(path, images if case.images else None, case.subset)), images


def test_a_format_is_found_and_read_to_the_pixel(case, tmp_path):
    converted, images = read(case, tmp_path)
    assert converted.format == case.format
    assert converted.images.resolve() == images.resolve()
    names = image_names(converted.content)
    assert len(names) == 3
    if case.format != "roboflow":  # renames the files
        assert set(names) <= set(scene.IMAGES)
        assert boxes_of(converted.content) == true_boxes()
        if case.masks:
            assert masks_of(converted.content) == true_masks()


def test_what_is_read_passes_the_check_of_datasets(case, tmp_path):
    converted, images = read(case, tmp_path)
    _, report = check_coco(
        converted.content,
        str(tmp_path),
        str(converted.images),
        masks=case.masks,
        mask_format="bitmask",
        for_evaluation=True,
    )
    assert not report.errors, str(report)


def test_classes_are_sorted_or_in_the_order_of_the_format(case, tmp_path):
    converted, _ = read(case, tmp_path)
    names = [one["name"] for one in converted.content["categories"] if one["id"]]
    assert [name for name in names if name != "background"] == list(scene.CLASSES)


def test_every_format_has_a_case():
    assert {*FORMATS, "coco", "roboflow"} - {case.format for case in CASES.values()} == {
        "voc_from_one",
        "voc_from_zero",
    }


@pytest.mark.parametrize("part", ["categories", "annotations", "images"])
def test_a_panoptic_file_without_a_list_is_named(tmp_path, part):
    path, images = forms.panoptic(tmp_path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: one for key, one in content.items() if key != part}))
    with pytest.raises(ValueError, match=f"{path.name}: .*it has no '{part}'"):
        convert(Source(path, images), "panoptic")
