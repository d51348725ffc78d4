"""Label Studio: each kind of region, several annotations, JSON-MIN, names of uploads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scenes import boxes_of, decoded, forms, image_names, masks_of, scene

from swinv2_backbone.d2.data.formats import Source, convert
from swinv2_backbone.d2.data.formats.brush import decode_brush

SIZE = (scene.HEIGHT, scene.WIDTH)
COMMON = {"original_width": scene.WIDTH, "original_height": scene.HEIGHT, "image_rotation": 0}
BOX = {"x": 25, "y": 25, "width": 50, "height": 50, "rotation": 0}


def region(kind: str, value: dict, key: str = "r", **more) -> dict:
    name = f"{kind}labels"
    return {"id": key, "type": name, "value": value | {name: ["fig"]}} | COMMON | more


def task(*results: dict, image: str = "/data/upload/3/0f0f0f0f-a.png", **more) -> dict:
    return {"id": 7, "data": {"image": image}, "annotations": [{"result": [*results]}]} | more


def read(tmp_path: Path, *tasks: dict):
    images = tmp_path / "images"
    scene.write_images(images)
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    return convert(Source(tmp_path / "export.json", images))


def test_rectangles_are_in_percent(tmp_path):
    converted = read(tmp_path, task(region("rectangle", BOX)))
    assert boxes_of(converted.content) == [("a.png", "fig", (16, 12, 32, 24))]
    assert "kept: objects with a box and no mask" in converted.report()


def test_a_rotated_rectangle_turns_about_its_upper_left_corner(tmp_path):
    converted = read(tmp_path, task(region("rectangle", BOX | {"rotation": 90})))
    assert boxes_of(converted.content) == [("a.png", "fig", (-8, 12, 24, 32))]
    assert "kept: rotated rectangles, read as the box around them" in converted.report()


def test_polygons_are_kept_as_they_are(tmp_path):
    path, images = forms.label_studio(tmp_path, brush=False)
    content = convert(Source(path, images)).content
    parts = sorted(one["segmentation"][0] for one in content["annotations"])
    assert parts == sorted(list(thing.parts[0]) for thing in scene.THINGS)


def test_an_ellipse_has_the_pixels_whose_center_is_inside(tmp_path):
    value = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 12.5}
    (entry,) = read(tmp_path, task(region("ellipse", value))).content["annotations"]
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    expected = ((x - 32) / 16) ** 2 + ((y - 24) / 6) ** 2 <= 1
    assert (decoded(entry["segmentation"], SIZE) == expected).all()


def test_labels_may_be_a_result_of_their_own(tmp_path):
    shape = {"id": "q", "type": "rectangle", "value": BOX} | COMMON
    label = {"id": "q", "type": "labels", "value": BOX | {"labels": ["date"]}} | COMMON
    assert boxes_of(read(tmp_path, task(shape, label)).content)[0][1] == "date"
    assert boxes_of(read(tmp_path, task(label, shape)).content)[0][1] == "date"


def test_the_minimal_form_is_read(tmp_path):
    flat = {"image": "s3://fruit/photos/a.png", "id": 3, "annotator": 1, "label": []}
    flat["label"] = [BOX | COMMON | {"rectanglelabels": ["fig"]}]
    converted = read(tmp_path, flat)
    assert boxes_of(converted.content) == [("a.png", "fig", (16, 12, 32, 24))]


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/12/89abcdef-a.png",
        "/data/local-files/?d=photos%2Fa.png",
        "https://host/bucket/a.png?token=3",
        "gs://bucket/a.png",
        "a.png",
    ],
)
def test_images_are_found_by_any_address(tmp_path, image):
    converted = read(tmp_path, task(region("rectangle", BOX), image=image))
    assert image_names(converted.content) == ["a.png"]


def test_one_annotation_of_an_image_is_taken_and_the_others_are_counted(tmp_path):
    first, second = (region("rectangle", BOX | {"width": width}) for width in (10, 20))
    annotations = [{"result": [first]}, {"result": [second], "ground_truth": True}]
    skipped = {"result": [], "was_cancelled": True}
    converted = read(tmp_path, task(annotations=[skipped, *annotations]))
    assert boxes_of(converted.content)[0][2][2] == pytest.approx(12.8)
    assert "left out: annotations that were skipped: task 7" in converted.report()
    assert "left out: further annotations of one image" in converted.report()


def test_tasks_without_annotations_have_no_objects_and_are_told(tmp_path):
    with_fig = task(region("rectangle", BOX), image="b.png")
    converted = read(tmp_path, task(annotations=[]), with_fig)
    image = converted.content["images"][0]
    assert (image["height"], image["width"]) == SIZE
    assert "kept: tasks without an annotation, read as images without objects" in converted.report()


def test_a_project_without_any_object_is_refused_with_the_cause(tmp_path):
    cancelled = {"was_cancelled": True, "result": []}
    with pytest.raises(ValueError) as error:
        read(tmp_path, task(annotations=[]), task(annotations=[cancelled], image="b.png"))
    words = str(error.value)
    assert "export.json: no object was read in 2 images" in words
    assert "kept: tasks without an annotation" in words
    assert "left out: annotations that were skipped: task 7" in words


def test_other_regions_are_left_out_and_counted(tmp_path):
    point = region("keypoint", {"x": 1, "y": 1})
    choice = {"id": "c", "type": "choices", "value": {"choices": ["good"]}}
    nameless = {"id": "n", "type": "rectangle", "value": BOX} | COMMON
    line = region("polygon", {"points": [[1, 1], [2, 2]]}, "l")
    converted = read(tmp_path, task(point, choice, nameless, line, region("rectangle", BOX, "b")))
    assert len(converted.content["annotations"]) == 1
    for words in ("of the type keypoint", "of the type choices", "without a label", "3 points"):
        assert words in converted.report()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (task(region("rectangle", BOX, image_rotation=90)), "was rotated by 90 degrees"),
        (task(region("rectangle", {"x": 1})), "has no valid 'y'"),
        (task(region("brush", {"rle": [0, 0, 0, 1]})), "end too early"),
        ({"id": 7, "data": {"text": "hello"}, "annotations": []}, "task 7 names no image"),
    ],
)
def test_invalid_tasks_are_refused(tmp_path, bad, words):
    with pytest.raises(ValueError, match=words):
        read(tmp_path, bad)


# ---- Brushes


def test_brushes_of_any_shape_are_decoded():
    for seed in range(5):
        mask = np.random.default_rng(seed).random((17, 23)) < 0.1 * (1 + 2 * seed)
        assert (decode_brush(forms.brush_code(mask), 17, 23) == mask).all()


def test_a_long_run_is_decoded():
    mask = np.zeros((200, 400), bool)
    mask[100:] = True
    assert (decode_brush(forms.brush_code(mask), 200, 400) == mask).all()


@pytest.mark.parametrize("cut", [3, 20, -1])
def test_damaged_brushes_are_refused(cut):
    code = forms.brush_code(np.eye(9, dtype=bool))
    with pytest.raises(ValueError, match="brush"):
        decode_brush(code[:cut], 9, 9)


def test_a_brush_of_another_size_is_refused():
    with pytest.raises(ValueError, match="324 values, an image of 9x10 .* has 360"):
        decode_brush(forms.brush_code(np.eye(9, dtype=bool)), 9, 10)


def test_the_exact_masks_of_brushes_reach_the_content(tmp_path):
    path, images = forms.label_studio(tmp_path)
    content = convert(Source(path, images)).content
    assert len(masks_of(content)) == len(scene.THINGS)
    assert {type(one["segmentation"]) for one in content["annotations"]} == {dict}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": None}, "'NoneType' object"),
        ({"annotations": [5]}, "'int' object"),
        ({"annotations": [{"result": [5]}]}, "'int' object"),
        ({"annotations": [{"result": [region("brush", {"rle": [300]})]}]}, "300"),
    ],
    ids=["data", "annotation", "region", "brush"],
)
def test_damage_is_named_with_its_task(tmp_path, change, words):
    with pytest.raises(ValueError, match=f"^task 7: an entry is not of the format: .*{words}"):
        read(tmp_path, task() | change)
