"""YOLO: names and folders as tools write them, and lines that are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from scenes import boxes_of, forms, image_names, scene, true_boxes

from swinv2_backbone.d2.data.formats import Source, convert


@pytest.fixture
def yolo(tmp_path) -> Path:
    return forms.yolo(tmp_path / "yolo", polygons=False)[0]


def label(yolo: Path, line: str) -> None:
    (yolo.parent / "labels" / "train" / "a.txt").write_text(line + "\n")


@pytest.mark.parametrize(
    "names",
    [
        "[date, fig]",
        "\n- date\n- fig",
        "\n  0: date\n  1: fig",
        "{1: fig, 0: date}",
        "{'0': date, '1': fig}",
    ],
)
def test_names_are_a_list_or_numbered(yolo, names):
    yolo.write_text(f"train: images/train\nnames: {names}\n")
    assert boxes_of(convert(Source(yolo)).content) == true_boxes()


def test_numbers_of_classes_may_start_anywhere(yolo):
    yolo.write_text("train: images/train\nnames: {1: fig, 7: plum}\n")
    label(yolo, "1 0.5 0.5 0.1 0.1\n7 0.5 0.5 0.1 0.1")
    (yolo.parent / "labels" / "train" / "b.txt").unlink()
    content = convert(Source(yolo)).content
    assert [one["category_id"] for one in content["annotations"]] == [1, 2]
    assert [one["name"] for one in content["categories"]] == ["fig", "plum"]


@pytest.mark.parametrize(
    "entry", ["images/train", "../images/train", "./images/train/", "[images/train]", "list.txt"]
)
def test_folders_are_found_from_the_file_or_a_list(yolo, entry):
    (yolo.parent / "list.txt").write_text("".join(f"./images/train/{n}\n" for n in scene.IMAGES))
    yolo.write_text(f"path: /content/datasets/fruit\ntrain: {entry}\nnames: [date, fig]\n")
    assert boxes_of(convert(Source(yolo)).content) == true_boxes()


def test_images_elsewhere_are_given(yolo, tmp_path):
    moved = tmp_path / "photos"
    shutil.move(yolo.parent / "images" / "train", moved)
    for file in (yolo.parent / "labels" / "train").iterdir():
        shutil.move(file, yolo.parent / "labels" / file.name)
    content = convert(Source(yolo, moved)).content
    assert boxes_of(content) == true_boxes()
    assert image_names(content) == sorted(scene.IMAGES)


def test_classes_txt_names_the_classes_of_a_folder_of_labels(yolo):
    folder = yolo.parent / "labels" / "train"
    (folder / "classes.txt").write_text("date\nfig\n")
    converted = convert(Source(folder, yolo.parent / "images" / "train"))
    assert converted.format == "yolo" and boxes_of(converted.content) == true_boxes()


def test_an_image_without_labels_has_no_objects_and_is_told(yolo):
    converted = convert(Source(yolo, None, "train"))
    assert (
        "kept: images without a file of labels, read as images without objects"
        in converted.report()
    )
    assert "empty.png" in converted.report()


def test_labels_without_an_image_are_told(yolo):
    labels = yolo.parent / "labels" / "train"
    (labels / "lost.txt").write_text("0 0.5 0.5 0.25 1e-1\n")
    (labels / "readme.txt").write_text("These are the labels of our photographs.\n")
    converted = convert(Source(yolo, None, "train"))
    report = converted.report()
    assert "files of labels without an image" in report and "lost.txt" in report
    assert "readme.txt" not in report and boxes_of(converted.content) == true_boxes()


def test_hidden_folders_hold_no_images(yolo):
    images = yolo.parent / "images" / "train"
    before = convert(Source(yolo, None, "train")).content
    shutil.copytree(images, images / ".ipynb_checkpoints")
    assert convert(Source(yolo, None, "train")).content == before


def test_several_lists_need_a_choice(yolo):
    with pytest.raises(ValueError, match="choose train or val"):
        convert(Source(yolo))
    with pytest.raises(ValueError, match="has no night: it has train, val"):
        convert(Source(yolo, None, "night"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2 0.5 0.5 0.1 0.1", "there is no class 2: the classes are 0 date, 1 fig"),
        ("0 31 20 10 10", "coordinates are fractions"),
        ("0 nan 0.5 0.1 0.1", "coordinates are fractions"),
        ("fig 0.5 0.5 0.1 0.1", "is not a list of numbers"),
        ("0 0.5 0.5 0.1 0.1 0.9", "6 numbers are neither"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "8 numbers are neither"),
    ],
)
def test_invalid_lines_are_refused_with_their_place(yolo, line, words):
    label(yolo, line)
    with pytest.raises(ValueError) as error:
        convert(Source(yolo, None, "train"))
    assert words in str(error.value) and "a.txt, line 1" in str(error.value)


def test_keypoints_are_left_out_and_counted(yolo):
    yolo.write_text("train: images/train\nnames: [date, fig]\nkpt_shape: [2, 3]\n")
    label(yolo, "1 0.5 0.5 0.25 0.5 0.1 0.1 2 0.2 0.2 2")
    converted = convert(Source(yolo))
    assert converted.content["annotations"][0]["bbox"] == [24, 12, 16, 24]
    assert "left out: keypoints" in converted.report()


@pytest.mark.parametrize("text", ["a: [", "train: images/train", "names: 5", "names: {a: b}"])
def test_a_description_without_names_is_refused(yolo, text):
    yolo.write_text(text)
    with pytest.raises(ValueError, match="data.yaml"):
        convert(Source(yolo))


def test_two_classes_of_one_name_are_refused(yolo):
    yolo.write_text("train: images/train\nnames: [fig, fig]\n")
    with pytest.raises(ValueError, match="several classes have the name 'fig'"):
        convert(Source(yolo))


def test_label_studios_notes_are_no_other_format(yolo):
    yolo.rename(yolo.parent / "old")
    (yolo.parent / "classes.txt").write_text("date\nfig\n")
    (yolo.parent / "notes.json").write_text('{"categories": [{"id": 0, "name": "date"}]}')
    assert convert(Source(yolo.parent)).format == "yolo"
