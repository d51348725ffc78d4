"""The format is found from files alone; what is ambiguous or unknown is listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scenes import forms

from swinv2_backbone.d2.data.formats import FORMATS, Source, convert, format_of


def test_two_formats_in_one_folder_are_listed(tmp_path):
    forms.voc(tmp_path / "voc")
    forms.voc_masks(tmp_path / "voc_masks")
    (tmp_path / "voc_masks" / "SegmentationObject").rename(tmp_path / "voc" / "SegmentationObject")
    with pytest.raises(
        ValueError, match="several formats, voc_masks and voc: choose one as FORMAT"
    ):
        format_of(tmp_path / "voc")


def test_an_unknown_folder_is_refused_with_all_formats(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError) as error:
        format_of(tmp_path)
    assert all(f"  {name}: " in str(error.value) for name in FORMATS)


def test_photographs_are_no_annotations(tmp_path):
    _, images = forms.coco(tmp_path)
    (images / "a.png").rename(images / "a.jpg")
    with pytest.raises(ValueError, match="no annotations of a known format"):
        format_of(images)


@pytest.mark.parametrize("name", ["export.zip", "export.tar"])
def test_archives_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(ValueError, match="is an archive: unpack it"):
        format_of(tmp_path / name)


def test_a_missing_path_and_an_unknown_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'nowhere' does not exist"):
        format_of(Path("nowhere"))
    with pytest.raises(ValueError, match="FORMAT 'coc' is unknown: it must be one of auto, coco"):
        format_of(tmp_path, "coc")


@pytest.mark.parametrize(
    ("content", "format"),
    [
        ({"images": [], "annotations": [], "categories": []}, "coco"),
        ({"images": [], "annotations": [{"segments_info": []}], "categories": []}, "panoptic"),
        ({"shapes": [], "imagePath": "a.png"}, "labelme"),
        ([{"data": {}, "annotations": []}], "label_studio"),
        ([], "coco"),  # refused by name later
    ],
)
@pytest.mark.parametrize("start", ["", "\ufeff", "\n "])
def test_kinds_of_json_are_told_apart(tmp_path, content, format, start):
    file = tmp_path / "a.json"
    file.write_text(start + json.dumps(content), encoding="utf-8")
    assert format_of(file) == format


def test_a_folder_with_coco_files_is_read_by_the_name_of_the_list(tmp_path):
    path, images = forms.coco(tmp_path / "all")
    target = tmp_path / "annotations"
    target.mkdir()
    for part in ("train", "val"):
        (target / f"instances_{part}.json").write_text(path.read_text())
        (tmp_path / part).mkdir()
    for file in images.iterdir():
        (tmp_path / "val" / file.name).write_bytes(file.read_bytes())
    path.unlink()
    converted = convert(Source(target, None, "val"))
    assert converted.images.name == "val" and len(converted.content["annotations"]) == 6
    with pytest.raises(ValueError, match="several files: name one of .*train.json, .*val.json"):
        convert(Source(target))


def test_each_set_of_roboflow_is_found(tmp_path):
    forms.roboflow(tmp_path)
    (tmp_path / "train").rename(tmp_path / "valid")
    forms.roboflow(tmp_path / "more")
    (tmp_path / "more" / "train").rename(tmp_path / "train")
    for subset, folder in (("train", "train"), ("val", "valid")):
        assert convert(Source(tmp_path, None, subset)).images.name == folder
    assert convert(Source(tmp_path / "train")).images.name == "train"
    with pytest.raises(ValueError, match="choose train or valid"):
        convert(Source(tmp_path))


def test_a_coco_file_without_its_images_asks_for_them(tmp_path):
    path, images = forms.coco(tmp_path)
    images.rename(tmp_path / "photos")
    with pytest.raises(ValueError, match=r"give the folder of the images .*\(IMAGES, --images\)"):
        convert(Source(path))
    assert convert(Source(path, tmp_path / "photos")).images == tmp_path / "photos"
