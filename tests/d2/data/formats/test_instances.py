"""Pictures of object numbers, and COCO's panoptic format."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scenes import forms, image_names, masks_of, scene, true_masks

from swinv2_backbone.d2.data.formats import Source, convert


def test_numbers_without_names_are_objects_of_one_class(tmp_path):
    path, images = forms.instances(tmp_path)
    content = convert(Source(path, images)).content
    assert [one["name"] for one in content["categories"]] == ["object"]
    assert sorted(mask for *_, mask in masks_of(content)) == sorted(m for *_, m in true_masks())


def test_a_single_name_is_that_of_all(tmp_path):
    path, images = forms.instances(tmp_path)
    (tmp_path / "classes.txt").write_text("nut\n")  # beside the folder
    content = convert(Source(path, images), "instances").content
    assert [one["name"] for one in content["categories"]] == ["nut"]


def test_groups_of_cityscapes_are_left_out_and_unknown_classes_refused(tmp_path):
    path, images = forms.instances(tmp_path, by_class=True)
    values = np.zeros((scene.HEIGHT, scene.WIDTH), np.uint16)
    values[:5], values[10:15] = 2, 2001
    Image.fromarray(values).save(path / "empty.png")
    converted = convert(Source(path, images))
    assert "left out: values below 1000, which are no single objects" in converted.report()
    assert len(converted.content["annotations"]) == 7
    values[20:25] = 3001
    Image.fromarray(values).save(path / "empty.png")
    with pytest.raises(ValueError, match="3001 is an object of class 3.*the classes 0 to 2"):
        convert(Source(path, images))


def test_endings_of_masks_are_no_part_of_the_name_and_unlabeled_images_are_told(tmp_path):
    path, images = forms.instances(tmp_path)
    (path / "a.png").rename(path / "a_instanceIds.png")
    (path / "empty.png").unlink()
    converted = convert(Source(path, images))
    assert image_names(converted.content) == ["a.png", "b.png"]
    assert "left out: images without a picture of object numbers: empty.png" in converted.report()


def test_the_folder_of_images_must_be_another(tmp_path):
    path, _ = forms.instances(tmp_path)
    for images in (None, path):
        with pytest.raises(ValueError, match="give the folder of the images"):
            convert(Source(path, images), "instances")


def test_pictures_with_colors_are_refused(tmp_path):
    path, images = forms.instances(tmp_path)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path / "a.png")
    with pytest.raises(ValueError, match="a.png: a label image holds one class number per pixel"):
        convert(Source(path, images))


# ---- COCO panoptic


def edited(tmp_path, change) -> Source:
    path, images = forms.panoptic(tmp_path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return Source(path, images)


def test_stuff_is_left_out_and_crowds_are_kept(tmp_path):
    def change(content):
        content["annotations"][0]["segments_info"][1]["iscrowd"] = 1

    converted = convert(edited(tmp_path, change))
    assert masks_of(converted.content) == true_masks()
    assert [one["iscrowd"] for one in converted.content["annotations"]] == [1, 0, 0, 0, 0, 0]
    assert "left out: segments of stuff (3)" in converted.report()


def test_images_without_segments_are_left_out(tmp_path):
    converted = convert(edited(tmp_path, lambda content: content["annotations"].pop()))
    assert image_names(converted.content) == ["a.png", "b.png"]
    assert "left out: images without segments" in converted.report()


def test_unknown_categories_and_missing_pngs_are_refused(tmp_path):
    source = edited(tmp_path, lambda content: content["categories"].pop())
    with pytest.raises(ValueError, match="segment 300 in a.png has the unknown category_id 3"):
        convert(source)
    (tmp_path / "panoptic").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="panoptic is missing: it holds the PNGs"):
        convert(source)
