"""CVAT's XML: each shape, groups, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scenes import decoded, forms, scene

from swinv2_backbone.d2.data.formats import Source, convert

SIZE = (scene.HEIGHT, scene.WIDTH)
BOX = '<box label="fig" xtl="1" ytl="1" xbr="3" ybr="3"/>'


@pytest.fixture
def folder(tmp_path) -> Path:
    forms.cvat(tmp_path)
    return tmp_path


def read(folder: Path, shapes: str, meta: str = ""):
    image = f'<image id="0" name="a.png" width="{scene.WIDTH}" height="{scene.HEIGHT}">'
    text = f"<annotations>{meta}{image}{shapes}</image></annotations>"
    (folder / "annotations.xml").write_text(text)
    return convert(Source(folder))


def test_a_mask_is_runs_along_the_rows_of_its_box(folder):
    runs = '<mask label="fig" rle="0, 2, 3, 1" left="5" top="7" width="3" height="2"></mask>'
    (entry,) = read(folder, runs).content["annotations"]
    expected = np.zeros(SIZE, bool)
    expected[7, 5:7] = expected[8, 7] = True
    assert (decoded(entry["segmentation"], SIZE) == expected).all()
    assert entry["bbox"] == [5, 7, 3, 2] and entry["area"] == 3


def test_a_mask_beyond_the_image_is_cut(folder):
    runs = '<mask label="fig" rle="0, 16" left="-2" top="46" width="4" height="4"></mask>'
    (entry,) = read(folder, runs).content["annotations"]
    assert entry["bbox"] == [0, 46, 2, 2]


def test_an_ellipse_has_the_pixels_whose_center_is_inside(folder):
    shape = '<ellipse label="fig" cx="30" cy="20" rx="12" ry="5" rotation="90"></ellipse>'
    (entry,) = read(folder, shape).content["annotations"]
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    expected = ((x - 30) / 5) ** 2 + ((y - 20) / 12) ** 2 <= 1
    assert (decoded(entry["segmentation"], SIZE) == expected).all()


def test_a_rotated_box_becomes_the_box_around_it(folder):
    box = '<box label="fig" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90"></box>'
    converted = read(folder, box)
    assert converted.content["annotations"][0]["bbox"] == pytest.approx([15, 5, 10, 20])
    assert "kept: rotated boxes, read as the box around them" in converted.report()


def test_groups_join_masks_and_polygons_but_no_boxes(folder):
    polygon = '<polygon label="fig" group_id="{}" points="1,1;5,1;5,5;1,5"></polygon>'
    mask = '<mask label="fig" group_id="{}" rle="0,4" left="20" top="20" width="2" height="2"/>'
    box = '<box label="fig" group_id="1" xtl="1" ytl="1" xbr="3" ybr="3"/>'
    found = read(folder, polygon.format(1) + mask.format(1) + box * 2 + polygon.format(0) * 2)
    areas = sorted(one["area"] for one in found.content["annotations"])
    assert areas == [4, 4, 16, 16, 20]


def test_shapes_without_an_area_are_left_out_and_counted(folder):
    names = ("polyline", "points", "cuboid", "skeleton", "tag")
    converted = read(folder, BOX + "".join(f'<{name} label="fig"/>' for name in names))
    assert len(converted.content["annotations"]) == 1
    for name in names:
        assert f"left out: shapes of the type {name}" in converted.report()


def test_labels_of_the_project_are_the_classes_even_without_objects(folder):
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("plum", "fig"))
    meta = f"<meta><project><labels>{labels}</labels></project></meta>"
    content = read(folder, BOX, meta).content
    assert [one["name"] for one in content["categories"]] == ["plum", "fig"]
    with pytest.raises(ValueError, match="'date' are not in the list of classes: plum, fig"):
        read(folder, BOX.replace("fig", "date"), meta)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ('<mask label="fig" rle="0,9" left="5" top="7" width="2" height="2"/>', "do not fit 2x2"),
        ('<mask label="fig" rle="0,4" left="?" top="7" width="2" height="2"/>', "left='?'"),
        ('<polygon label="fig" points="1,1;2;3,3"/>', "invalid points"),
        ('<box label="fig" xtl="1" ytl="1" xbr="3"/>', "ybr=None"),
    ],
)
def test_invalid_shapes_are_refused(folder, shape, words):
    with pytest.raises(ValueError) as error:
        read(folder, shape)
    assert words in str(error.value) and "fig" in str(error.value)


def test_the_form_of_videos_is_refused_with_the_one_to_export(folder):
    (folder / "annotations.xml").write_text("<annotations><track id='0'/></annotations>")
    with pytest.raises(ValueError, match="CVAT for images 1.1"):
        convert(Source(folder))


def test_polygons_of_two_points_are_left_out(folder):
    converted = read(folder, BOX + '<polygon label="fig" points="1,2;30,2" />')
    assert len(converted.content["annotations"]) == 1
    assert "left out: polygons of fewer than 3 points: fig in a.png" in converted.report()


def test_damage_is_named_with_its_image(folder):
    runs = '<mask label="fig" rle="0, x" left="5" top="7" width="3" height="2"></mask>'
    with pytest.raises(ValueError, match=r"annotations\.xml, image a\.png: .*' x'"):
        read(folder, runs)
