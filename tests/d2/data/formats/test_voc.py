"""Pascal VOC: the count of pixels, names of images, masks as palettes, colors and gray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scenes import boxes_of, forms, image_names, masks_of, scene, true_boxes, true_masks

from swinv2_backbone.d2.data.formats import Source, convert
from swinv2_backbone.d2.data.formats.voc_masks import VOC_NAMES, voc_color


@pytest.mark.parametrize(("first", "words"), [(1, "0 start at 0, 1 at 1"), (0, "1 start at 0")])
def test_the_count_of_pixels_is_found_from_boxes_at_the_edge(tmp_path, first, words):
    path, _ = forms.voc(tmp_path, first)
    converted = convert(Source(path))
    assert boxes_of(converted.content) == true_boxes()
    assert f"boxes count pixels from {first}: {words}" in converted.report()
    other = f"voc_from_{'zero' if first else 'one'}"
    assert f"FORMAT {other} reads them the other way" in converted.report()
    box = convert(Source(path), other).content["annotations"][0]["bbox"]
    x, y, w, h = scene.THINGS[0].box
    assert box == ([x + 1, y + 1, w - 1, h - 1] if first else [x - 1, y - 1, w + 1, h + 1])


def test_vocs_own_count_is_taken_if_no_box_is_at_the_edge(tmp_path):
    path, _ = forms.voc(tmp_path, 1)
    (path / "Annotations" / "b.xml").unlink()
    assert "boxes count pixels from 1: 0 start at 0, 0 at 1" in convert(Source(path)).report()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_difficult_objects_are_kept_and_objects_without_numbers_and_parts_left_out(tmp_path):
    path, _ = forms.voc(tmp_path)
    file = path / "Annotations" / "a.xml"
    edit(file, "<difficult>0", "<difficult>1")
    edit(file, "</object>", "<part><name>head</name></part></object>")
    edit(file, "<xmin>23</xmin>", "<xmin>?</xmin>")
    converted = convert(Source(path))
    assert len(converted.content["annotations"]) == 5
    report = converted.report()
    assert "kept: objects marked as difficult, kept as any other" in report
    assert "left out: parts of objects (<part>)" in report
    assert "left out: objects without a <bndbox> of four numbers: object 1 in a.xml" in report


def test_polygons_of_roboflow_are_masks(tmp_path):
    path, _ = forms.voc(tmp_path)
    file = path / "Annotations" / "a.xml"
    points = [value + 1 for value in scene.THINGS[0].parts[0]]
    inner = "".join(
        f"<{'xy'[i % 2]}{i // 2 + 1}>{v}</{'xy'[i % 2]}{i // 2 + 1}>" for i, v in enumerate(points)
    )  # noqa: E501
    edit(file, "</bndbox>", f"</bndbox><polygon>{inner}</polygon>")
    entry = convert(Source(path)).content["annotations"][0]
    assert entry["segmentation"] == [list(scene.THINGS[0].parts[0])]


def test_a_renamed_image_is_found_by_the_name_of_its_xml(tmp_path):
    path, images = forms.voc(tmp_path)
    edit(path / "Annotations" / "a.xml", "<filename>a.png", "<filename>IMG_0001.JPG")
    assert image_names(convert(Source(path)).content) == sorted(scene.IMAGES)


def test_a_list_selects_images_and_may_name_some_without_a_file(tmp_path):
    path, _ = forms.voc(tmp_path)
    (path / "Annotations" / "empty.xml").unlink()
    lists = path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b\nempty\n")
    (lists / "cat_train.txt").write_text("a  1\nb -1\n")
    found = {subset: convert(Source(path, None, subset)) for subset in ("train", "val", "")}
    names = {subset: image_names(one.content) for subset, one in found.items()}
    assert names == {
        "train": ["a.png"],
        "val": ["b.png", "empty.png"],
        "": ["a.png", "b.png", "empty.png"],
    }
    assert "listed images without an XML file" in found["val"].report()


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("<!DOCTYPE a [<!ENTITY b 'c'>]>", "declares a document type (<!DOCTYPE a>)"),
        ("<annotation>", "is not XML"),
    ],
)
def test_entities_and_broken_files_are_refused(tmp_path, form, words):
    path, _ = forms.voc(tmp_path)
    file = path / "Annotations" / "a.xml"
    file.write_text(form + file.read_text())
    with pytest.raises(ValueError) as error:
        convert(Source(path), "voc")
    assert words in str(error.value) and "a.xml" in str(error.value)


def test_entities_are_not_expanded(tmp_path):
    path, _ = forms.voc(tmp_path)
    bomb = "<!DOCTYPE a [<!ENTITY a 'ha'>" + "".join(
        f"<!ENTITY {chr(98 + i)} '{('&' + chr(97 + i) + ';') * 1000}'>" for i in range(8)
    )
    (path / "Annotations" / "a.xml").write_text(f"{bomb}]><annotation>&i;</annotation>")
    with pytest.raises(ValueError, match="declares a document type"):
        convert(Source(path), "voc")


# ---- Masks


@pytest.mark.parametrize("mode", ["gray", "gray palette"])
def test_gray_pictures_of_indices_stand_for_the_palette(tmp_path, mode):
    path, _ = forms.voc_masks(tmp_path)
    for file in path.glob("Segmentation*/*.png"):
        values = Image.fromarray(np.asarray(Image.open(file)))
        if mode == "gray palette":
            values = values.convert("P")
            values.putpalette([value for value in range(256) for _ in range(3)])
        values.save(file)
    assert masks_of(convert(Source(path)).content) == true_masks()


def test_borders_and_unlisted_images_belong_to_nothing(tmp_path):
    path, _ = forms.voc_masks(tmp_path)
    for file in path.glob("Segmentation*/a.png"):
        picture = Image.open(file)
        values = np.asarray(picture).copy()
        values[0] = 255
        bordered = Image.fromarray(values)
        bordered.putpalette(picture.getpalette())
        bordered.save(file)
    (path / "ImageSets" / "Segmentation" / "train.txt").unlink()
    converted = convert(Source(path))
    assert masks_of(converted.content) == true_masks()
    assert image_names(converted.content) == ["a.png", "b.png"]
    assert (
        "left out: images without a picture of their objects, which may show unlabeled ones"
        in converted.report()
    )


def test_the_classes_without_a_map_are_vocs(tmp_path):
    path, _ = forms.voc_masks(tmp_path)
    (path / "labelmap.txt").unlink()
    converted = convert(Source(path))
    names = {one["id"]: one["name"] for one in converted.content["categories"]}
    assert list(names.values()) == list(VOC_NAMES[1:])
    used = {names[one["category_id"]] for one in converted.content["annotations"]}
    assert used == {"aeroplane", "bicycle"}  # indices 1 and 2
    assert "the classes are VOC's own 20" in converted.report()


def test_the_palette_is_vocs():
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {index: voc_color(index) for index in known} == known
    assert voc_color(255) == (224, 224, 192)  # the border
    assert [c for i in range(256) for c in voc_color(i)] == forms.voc_palette()


def test_a_color_without_a_name_is_refused(tmp_path):
    path, _ = forms.voc_masks(tmp_path)
    edit(path / "labelmap.txt", "fig:0,128,0", "fig:1,2,3")
    with pytest.raises(ValueError, match=r"SegmentationClass.*\(0, 128, 0\) has no class name"):
        convert(Source(path))


def test_semantic_labels_alone_are_refused_with_their_key(tmp_path):
    path, _ = forms.voc_masks(tmp_path)
    (path / "SegmentationObject").rename(path / "other")
    with pytest.raises(ValueError, match="has no SegmentationObject.*TRAIN.LABELS"):
        convert(Source(path), "voc_masks")


def test_hidden_files_of_macos_are_no_annotations(tmp_path):
    path, _ = forms.voc(tmp_path, 1)
    expected = convert(Source(path)).content
    (path / "Annotations" / "._a.xml").write_bytes(b"\0\5\26\7\xff")
    (path / "._a.xml").write_bytes(b"\0\5\26\7\xff")
    assert convert(Source(path)).content == expected


def test_both_lists_of_a_folder_count_pixels_alike(tmp_path):
    """Only b.png has a box at the edge."""
    path, _ = forms.voc(tmp_path, 0)
    lists = path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b\n")
    (path / "Annotations" / "empty.xml").write_text("broken, but in no list")
    found = [convert(Source(path, None, subset)) for subset in ("train", "val")]
    assert [one.first_pixel for one in found] == [0, 0]
    assert sorted(boxes_of(found[0].content) + boxes_of(found[1].content)) == true_boxes()
    assert convert(Source(path, None, "train"), "voc_from_one").first_pixel == 1


def test_a_number_at_the_end_of_a_listed_name_is_no_column_if_the_file_has_it(tmp_path):
    path, images = forms.voc(tmp_path)
    for old, new in (("a", "photo 12"), ("b", "photo b")):
        for file in (path / "Annotations" / f"{old}.xml", images / f"{old}.png"):
            file.rename(file.with_stem(new))
    lists = path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "my_train.txt").write_text("photo 12\nphoto b 1\nempty  -1\n")
    expected = ["empty.png", "photo 12.png", "photo b.png"]
    assert image_names(convert(Source(path, None, "my_train")).content) == expected
    (path / "Annotations" / "photo 12.xml").unlink()  # the image tells
    assert image_names(convert(Source(path, None, "my_train")).content) == expected


def test_listed_names_may_have_spaces(tmp_path):
    path, images = forms.voc(tmp_path, 1)
    for file in (path / "Annotations" / "a.xml", images / "a.png"):
        file.rename(file.with_stem("my a"))
    lists = path / "ImageSets" / "Main"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "my_train.txt").write_text("my a\n")
    (lists / "._my_train.txt").write_bytes(b"\0\5\26\7\xff")
    assert image_names(convert(Source(path, None, "my_train")).content) == ["my a.png"]
