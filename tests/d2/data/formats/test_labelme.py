"""LabelMe: each type of shape, groups, and files in other folders than their images."""

from __future__ import annotations

import json
from math import pi
from pathlib import Path

import numpy as np
import pytest
from scenes import decoded, forms, image_names, scene

from swinv2_backbone.d2.data.formats import Source, convert

SIZE = (scene.HEIGHT, scene.WIDTH)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder whose only file is that of a.png."""
    path, _ = forms.labelme(tmp_path / "labels")
    for name in ("b.json", "empty.json"):
        (path / name).unlink()
    return path


def read(folder: Path, *shapes: dict, **changes):
    file = folder / "a.json"
    content = json.loads(file.read_text()) | {"shapes": [{"label": "fig"} | s for s in shapes]}
    file.write_text(json.dumps(content | changes))
    return convert(Source(folder), "labelme")


def polygon(*points: tuple[float, float], **more) -> dict:
    return {"shape_type": "polygon", "points": points} | more


TRIANGLE = polygon((1, 1), (5, 1), (5, 5))


def test_a_rectangle_is_a_box_whatever_its_corners(folder):
    shape = {"shape_type": "rectangle", "points": [[30.5, 20], [10, 5.25]]}
    converted = read(folder, shape)
    (entry,) = converted.content["annotations"]
    assert entry["bbox"] == [10, 5.25, 20.5, 14.75] and "segmentation" not in entry
    assert "kept: objects with a box and no mask" in converted.report()


def test_a_circle_is_a_mask_of_the_pixels_whose_center_is_inside(folder):
    shape = {"shape_type": "circle", "points": [[30, 20], [40, 20]]}
    (entry,) = read(folder, shape).content["annotations"]
    mask = decoded(entry["segmentation"], SIZE)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    assert (mask == (np.hypot(x - 30, y - 20) <= 10)).all()
    assert mask.sum() == pytest.approx(pi * 100, rel=0.02)


def test_shapes_without_an_area_are_left_out_and_counted(folder):
    kinds = ("line", "point", "linestrip", "points")
    shapes = [{"shape_type": kind, "points": [[1, 1], [5, 5]]} for kind in kinds]
    cube = {"shape_type": "cube", "points": [[1, 1]]}
    converted = read(folder, *shapes, polygon((1, 1), (5, 5)), cube, TRIANGLE)
    assert len(converted.content["annotations"]) == 1
    for kind in kinds:
        assert f"left out: shapes of the type {kind}, which have no area" in converted.report()
    assert "left out: polygons of fewer than 3 points" in converted.report()
    assert "left out: shapes of the unknown type cube" in converted.report()


def test_parts_of_a_group_are_one_object_and_other_labels_are_not(folder):
    left, right = [(1, 1), (5, 1), (5, 5)], [(10, 1), (15, 1), (15, 5)]
    found = read(
        folder,
        polygon(*left, group_id=1),
        polygon(*right, group_id=1),
        polygon(*right, group_id=1, label="date"),
        polygon(*left),
        polygon(*left),
    ).content["annotations"]
    assert sorted(len(one["segmentation"]) for one in found) == [1, 1, 1, 2]


def test_a_polygon_and_a_circle_of_a_group_are_one_mask(folder):
    circle = {"shape_type": "circle", "points": [[40, 20], [45, 20]], "group_id": 0}
    square = polygon((1, 1), (5, 1), (5, 5), (1, 5), group_id=0)
    (entry,) = read(folder, square, circle).content["annotations"]
    mask = decoded(entry["segmentation"], SIZE)
    assert mask[1:5, 1:5].all() and mask[20, 40] and mask.sum() == 16 + mask[10:30, 30:].sum()


def test_rotated_rectangles_become_the_box_around_them(folder):
    shape = {"shape_type": "rotation", "points": [[20, 10], [30, 20], [20, 30], [10, 20]]}
    converted = read(folder, shape)
    assert converted.content["annotations"][0]["bbox"] == [10, 10, 20, 20]
    assert "kept: rotated rectangles, read as the box around them" in converted.report()


@pytest.mark.parametrize("stated", ["..\\labels\\a.png", "a.png", "C:\\Users\\me\\a.png", ""])
def test_the_image_is_found_from_any_systems_path(folder, stated):
    assert image_names(read(folder, TRIANGLE, imagePath=stated).content) == ["a.png"]


def test_labels_beside_the_folder_of_images(tmp_path):
    path, images = forms.labelme(tmp_path / "data")
    labels = tmp_path / "labels"
    labels.mkdir()
    for file in path.glob("*.json"):
        file.rename(labels / file.name)
    converted = convert(Source(labels, images))
    assert image_names(converted.content) == sorted(scene.IMAGES)
    assert converted.images == images


def test_the_size_is_read_from_the_image_if_it_is_not_stated(folder):
    converted = read(folder, TRIANGLE, imageHeight=None, imageWidth=None)
    (image,) = converted.content["images"]
    assert (image["height"], image["width"]) == SIZE


@pytest.mark.parametrize(
    "shape",
    [
        polygon((1, "a"), (2, 2), (3, 3)),
        polygon((1, float("nan")), (2, 2), (3, 3)),
        {"shape_type": "circle", "points": [[1, 1]]},
        {"shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": "!"},
        {"shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": "AAAA"},
    ],
)
def test_invalid_shapes_are_refused_with_their_place(folder, shape):
    with pytest.raises((ValueError, OSError), match="a.json, shape 0"):
        read(folder, shape)


def test_hidden_files_of_macos_are_no_annotations(folder):
    (folder / "._a.json").write_bytes(b"\0\5\26\7\xff")
    assert image_names(convert(Source(folder)).content) == ["a.png"]


def test_damage_is_named_with_its_file(folder):
    with pytest.raises(ValueError, match=r"a\.json: .*'x'"):
        read(folder, imageHeight="x")
    with pytest.raises(ValueError, match=r"a\.json: an entry is not of the format: 'int' object"):
        read(folder, imageHeight=scene.HEIGHT, shapes=[5])
