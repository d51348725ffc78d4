"""The generated dataset is reproducible, is what was drawn, and leaves foreign files alone."""

import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from scripts import ROOT

from swinv2_backbone.d2.demo import dataset as demo
from swinv2_backbone.d2.demo import scene as demo_scene

KINDS = ("", "_labels", "_stuff", "_panoptic")  # folders of images per split
SMALL = {"num_train": 20, "num_val": 3, "image_size": 96}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> demo.DemoDataset:
    return demo.generate_demo_dataset(tmp_path_factory.mktemp("demo") / "data", seed=5, **SMALL)


@pytest.fixture(scope="module")
def coco(dataset) -> COCO:
    return COCO(dataset.train_json)


def read_files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def read_times(root: Path) -> dict[str, int]:
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in root.rglob("*")}


def pair_with_scenes(coco: COCO) -> list[tuple[dict, demo.Instance]]:
    """Each annotation of the training file with the instance that was drawn for it."""
    pairs = []
    for index, image_id in enumerate(coco.getImgIds()):
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        instances = demo.draw_scene(5, "train", index, SMALL["image_size"]).instances
        pairs += zip(annotations, instances, strict=True)
    return pairs


def test_the_same_seed_gives_the_same_bytes(dataset, tmp_path):
    demo.generate_demo_dataset(tmp_path, seed=5, **SMALL)
    assert read_files(tmp_path) == read_files(dataset.root)


@pytest.mark.parametrize("other", [(6, "train", 0), (5, "val", 0), (5, "train", 1)])
def test_seed_split_and_index_each_change_the_image(other):
    assert not np.array_equal(demo.draw_scene(5, "train", 0).image, demo.draw_scene(*other).image)


def test_an_image_does_not_depend_on_how_many_there_are(dataset, tmp_path):
    fewer = demo.generate_demo_dataset(tmp_path, seed=5, num_train=2, num_val=1, image_size=96)
    last = "000002.png"
    assert (fewer.train_images / last).read_bytes() == (dataset.train_images / last).read_bytes()


def test_images_on_disk_are_the_drawn_ones_and_vary_in_size(dataset, coco):
    sizes = set()
    for index, image in enumerate(coco.loadImgs(coco.getImgIds())):
        drawn = demo.draw_scene(5, "train", index, SMALL["image_size"]).image
        stored = cv2.imread(str(dataset.train_images / image["file_name"]))
        np.testing.assert_array_equal(stored, drawn)
        assert (image["height"], image["width"]) == drawn.shape[:2]
        sizes.add(drawn.shape[:2])
    assert len(sizes) > 10
    assert all(72 <= side <= 120 for size in sizes for side in size)


def test_category_ids_have_gaps_and_every_class_occurs(coco):
    assert coco.getCatIds() == [2, 3, 7, 11, 20]
    assert {a["category_id"] for a in coco.dataset["annotations"]} == {2, 3, 7, 11, 20}


def test_empty_images_crowds_rle_and_polygons_occur(coco):
    annotations = coco.dataset["annotations"]
    objects = [a["segmentation"] for a in annotations if not a["iscrowd"]]
    assert {a["image_id"] for a in annotations} < set(coco.getImgIds())
    assert any(a["iscrowd"] for a in annotations)
    assert any(isinstance(s, dict) and isinstance(s["counts"], str) for s in objects)
    assert sum(isinstance(s, list) for s in objects) > len(objects) / 2


def test_some_object_is_cut_into_several_polygons():
    pieces = (
        demo.annotate(instance, 1, 1)["segmentation"]
        for index in range(200)
        for instance in demo.draw_scene(0, "train", index).instances
    )
    assert any(isinstance(piece, list) and len(piece) > 1 for piece in pieces)


def test_rle_masks_are_exact_and_polygons_nearly_so(coco):
    for annotation, instance in pair_with_scenes(coco):
        mask = coco.annToMask(annotation).astype(bool)
        iou = (mask & instance.mask).sum() / (mask | instance.mask).sum()
        assert iou >= (0.95 if isinstance(annotation["segmentation"], list) else 1.0)


def test_a_mask_with_a_hole_is_never_polygons():
    mask = np.zeros((20, 20), bool)
    mask[4:16, 4:16] = True
    solid = demo.Instance(3, mask, iscrowd=False, as_rle=False)
    assert isinstance(demo.annotate(solid, 1, 1)["segmentation"], list)
    mask[9, 9] = False  # one pixel: too small for the IoU to notice
    assert isinstance(demo.annotate(solid, 1, 1)["segmentation"], dict)


def test_class_crowd_flag_bbox_and_area_agree_with_the_drawn_instance(coco):
    for annotation, instance in pair_with_scenes(coco):
        x, y, w, h = annotation["bbox"]
        outside = instance.mask.copy()
        outside[y : y + h, x : x + w] = False
        box = instance.mask[y : y + h, x : x + w]
        assert box.shape == (h, w) and not outside.any()
        assert box[0].any() and box[-1].any() and box[:, 0].any() and box[:, -1].any()
        assert annotation["area"] == instance.mask.sum()
        assert annotation["category_id"] == instance.category_id
        assert annotation["iscrowd"] == instance.iscrowd


@pytest.mark.parametrize(
    ("name", "corners", "share"),
    [
        ("square", 4, 2 / np.pi),
        ("triangle", 3, 0.75 * 3**0.5 / np.pi),
        ("star", 10, 10 * 0.5 * 0.42 * np.sin(np.pi / 5) / np.pi),
        ("disc", None, 1.0),
        ("ring", None, 1 - 0.55**2),
    ],
)
def test_each_class_has_its_corners_and_its_share_of_the_circle_around_it(name, corners, share):
    mask, area = demo_scene._rasterize(name, np.array([100.0, 100.0]), 160.0, 0.3, 200, 200)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    assert area == mask.sum() == pytest.approx(share * np.pi * 80**2, rel=0.05)
    assert mask[100, 100] == (name != "ring")
    assert len(contours) == (2 if name == "ring" else 1)
    if corners is not None:
        assert len(cv2.approxPolyDP(contours[0], 5, closed=True)) == corners


def test_a_shape_beyond_the_border_keeps_its_full_area():
    inside, full = demo_scene._rasterize("square", np.array([50.0, 50.0]), 40.0, 0.3, 100, 100)
    cut, area = demo_scene._rasterize("square", np.array([99.0, 50.0]), 40.0, 0.3, 100, 100)
    assert inside.sum() == full == area
    assert 0.4 * full < cut.sum() < 0.6 * full


@pytest.mark.parametrize("index", range(0, 60, 4))  # with crowds, without empty images
def test_masks_are_exactly_the_pixels_in_which_objects_show(index):
    scene = demo.draw_scene(1, "val", index)
    masks = np.array([instance.mask for instance in scene.instances])
    assert masks.sum(axis=0).max() == 1, "visible parts must not overlap"
    change = np.abs(scene.image.astype(int) - scene.background).max(axis=2)
    assert not change[~masks.any(axis=0)].any()
    assert all((change[mask] > 20).mean() > 0.9 for mask in masks)


def test_objects_that_hardly_show_are_left_out_and_cover_nothing():
    def shape(category_id: int, columns: slice) -> demo_scene._Shape:
        mask = np.zeros((10, 40), bool)
        mask[:, columns] = True
        instance = demo.Instance(category_id, mask, iscrowd=False, as_rle=False)
        return demo_scene._Shape(instance, int(mask.sum()))

    back, middle, front = shape(2, slice(0, 20)), shape(3, slice(10, 30)), shape(7, slice(14, 30))
    visible = demo_scene._occlude([back, middle, front])
    assert [(i.category_id, int(i.mask.sum())) for i in visible] == [(2, 140), (7, 160)]


def test_a_complete_dataset_is_reused_untouched(tmp_path):
    first = demo.generate_demo_dataset(tmp_path, num_train=3, num_val=1, image_size=64)
    before = read_times(tmp_path)
    assert demo.generate_demo_dataset(tmp_path, num_train=3, num_val=1, image_size=64) == first
    assert read_times(tmp_path) == before


def test_other_parameters_replace_our_files_and_keep_the_users(tmp_path):
    demo.generate_demo_dataset(tmp_path, num_train=4, num_val=2, image_size=64)
    (tmp_path / "train" / "mine.png").write_bytes(b"mine")
    demo.generate_demo_dataset(tmp_path, seed=1, num_train=2, num_val=3, image_size=64)
    assert set(read_files(tmp_path)) == {
        *("demo.json", "train.json", "val.json", "train_panoptic.json", "val_panoptic.json"),
        *("classes.txt", "train/mine.png"),
        *(f"train{kind}/00000{i}.png" for kind in KINDS for i in (1, 2)),
        *(f"val{kind}/00000{i}.png" for kind in KINDS for i in (1, 2, 3)),
    }
    assert (tmp_path / "train" / "mine.png").read_bytes() == b"mine"
    assert len(json.loads((tmp_path / "train.json").read_text())["images"]) == 2


@pytest.mark.parametrize("has_complete_one", [False, True])
def test_an_interrupted_dataset_is_not_taken_for_complete_and_is_finished(
    tmp_path, monkeypatch, has_complete_one
):
    root, wanted = tmp_path / "data", {"num_train": 3, "num_val": 1, "image_size": 64}
    if has_complete_one:
        demo.generate_demo_dataset(root, num_train=5, num_val=2, image_size=64)

    write_json = json.dumps

    def stop_at_annotations(value: dict, **options) -> str:
        if "annotations" in value:
            raise KeyboardInterrupt
        return write_json(value, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(demo.json, "dumps", stop_at_annotations)
        demo.generate_demo_dataset(root, seed=1, **wanted)
    assert not (root / "demo.json").exists()
    assert (root / "train" / "000003.png").exists()

    demo.generate_demo_dataset(root, seed=1, **wanted)
    demo.generate_demo_dataset(tmp_path / "fresh", seed=1, **wanted)
    assert read_files(root) == read_files(tmp_path / "fresh")


def test_files_of_an_interrupted_removal_are_removed_by_the_next_call(tmp_path, monkeypatch):
    demo.generate_demo_dataset(tmp_path, num_train=4, num_val=2, image_size=64)
    unlink = Path.unlink

    def stop_at_images(path: Path, **options) -> None:
        if path.suffix == ".png":
            raise KeyboardInterrupt
        unlink(path, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", stop_at_images)
        demo.generate_demo_dataset(tmp_path, num_train=1, num_val=1, image_size=64)
    assert (tmp_path / "train" / "000004.png").exists()
    demo.generate_demo_dataset(tmp_path, num_train=1, num_val=1, image_size=64)
    assert [path.name for path in tmp_path.rglob("*.png")] == ["000001.png"] * 2 * len(KINDS)


@pytest.mark.parametrize(
    "missing", ["train/000007.png", "val_labels/000003.png", "classes.txt", "train_panoptic.json"]
)
def test_a_missing_file_is_made_again(dataset, tmp_path, missing):
    demo.generate_demo_dataset(tmp_path, seed=5, **SMALL)
    (tmp_path / missing).unlink()
    demo.generate_demo_dataset(tmp_path, seed=5, **SMALL)
    assert read_files(tmp_path) == read_files(dataset.root)


def test_a_marker_with_a_version_that_is_no_number_is_foreign(tmp_path):
    counts = {"seed": 0, "num_train": 1, "num_val": 1, "image_size": 64, "version": "1"}
    (tmp_path / "demo.json").write_text(json.dumps(counts))
    with pytest.raises(ValueError, match="choose a new or empty folder"):
        demo.generate_demo_dataset(tmp_path, num_train=1, num_val=1, image_size=64)


@pytest.mark.parametrize("name", ["notes.txt", "train.json", "demo.json", "demo.partial.json"])
def test_a_folder_with_foreign_files_is_refused_and_left_alone(tmp_path, name):
    counts = {"seed": 0, "num_train": 1, "num_val": 1, "image_size": 64}
    (tmp_path / name).write_text(json.dumps(counts | {"generator": "another"}))
    before = read_files(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path}.*choose a new or empty folder"):
        demo.generate_demo_dataset(tmp_path, num_train=1, num_val=1, image_size=64)
    assert read_files(tmp_path) == before


def test_a_foreign_marker_beside_ours_is_refused_and_left_alone(tmp_path):
    demo.generate_demo_dataset(tmp_path, num_train=2, num_val=1, image_size=64)
    (tmp_path / "demo.json").rename(tmp_path / "demo.partial.json")
    (tmp_path / "demo.json").write_text("mine")
    before = read_files(tmp_path)
    with pytest.raises(ValueError, match="choose a new or empty folder"):
        demo.generate_demo_dataset(tmp_path, num_train=2, num_val=1, image_size=64)
    assert read_files(tmp_path) == before


def test_a_users_image_in_the_way_of_a_larger_dataset_is_refused(tmp_path):
    demo.generate_demo_dataset(tmp_path, num_train=2, num_val=1, image_size=64)
    (tmp_path / "train" / "000003.png").write_bytes(b"mine")
    before = read_files(tmp_path)
    with pytest.raises(ValueError, match="000003.png"):
        demo.generate_demo_dataset(tmp_path, num_train=3, num_val=1, image_size=64)
    assert read_files(tmp_path) == before


def make_version_1(root: Path, num_train: int) -> dict[str, bytes]:
    """A folder as the generator's first version left it: without labels and panoptic files."""
    demo.generate_demo_dataset(root, num_train=num_train, num_val=1, image_size=64)
    old = {"train.json", "val.json", *(f"train/{i + 1:06d}.png" for i in range(num_train))}
    for name in set(read_files(root)) - old - {"val/000001.png", "demo.json"}:
        (root / name).unlink()
    record = json.loads((root / "demo.json").read_text())
    (root / "demo.json").write_text(json.dumps(record | {"version": 1}))
    return read_files(root)


def test_the_generator_is_recorded_under_a_name_that_outlives_its_module(dataset):
    record = json.loads((dataset.root / "demo.json").read_text())
    assert record["generator"] == "swinv2_backbone.d2.data.demo"


def test_a_folder_of_the_first_version_is_made_anew_with_the_same_images(tmp_path):
    before = make_version_1(tmp_path / "old", num_train=3)
    for root in (tmp_path / "old", tmp_path / "fresh"):
        demo.generate_demo_dataset(root, num_train=3, num_val=1, image_size=64)
    after = read_files(tmp_path / "old")
    assert after == read_files(tmp_path / "fresh")
    assert all(after[name] == data for name, data in before.items() if name != "demo.json")
    assert len(after) == len(before) + 1 + 2 + 3 * 4  # classes, panoptic JSONs, 3 folders of 4


@pytest.mark.parametrize("mine", ["train_labels/000003.png", "classes.txt", "val_stuff"])
def test_a_users_file_where_the_first_version_wrote_none_is_refused_and_left_alone(tmp_path, mine):
    make_version_1(tmp_path, num_train=3)
    if mine == "val_stuff":  # a file where a folder is to be
        (tmp_path / mine).rmdir()
    (tmp_path / mine).write_bytes(b"mine")
    before = read_files(tmp_path)
    with pytest.raises(ValueError, match=mine):  # also with less images than there were
        demo.generate_demo_dataset(tmp_path, num_train=1, num_val=1, image_size=64)
    assert read_files(tmp_path) == before


@pytest.mark.parametrize(
    ("argument", "value", "lowest"),
    [("num_train", 0, 1), ("num_val", -2, 1), ("image_size", 63, 64), ("seed", -1, 0)],
)
def test_arguments_out_of_range_are_named_with_what_is_allowed(tmp_path, argument, value, lowest):
    with pytest.raises(ValueError, match=f"{argument}={value} must be at least {lowest}"):
        demo.generate_demo_dataset(tmp_path / "data", **{argument: value})
    assert not (tmp_path / "data").exists()


def test_a_file_as_root_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file"):
        demo.generate_demo_dataset(tmp_path / "file")


def test_the_command_line_tool_says_what_it_made(tmp_path, capsys):
    tool = ROOT / "tools" / "make_demo_dataset.py"
    arguments = ["--seed", "5", "--num-train", "16", "--num-val", "1", "--image-size", "64"]
    runpy.run_path(str(tool))["main"]([str(tmp_path), *arguments])
    printed = capsys.readouterr().out
    coco = json.loads((tmp_path / "train.json").read_text())
    rings = sum(a["category_id"] == 20 and not a["iscrowd"] for a in coco["annotations"])
    assert "train.json: 16 images, 1 of them empty" in printed
    assert f"{rings} ring" in printed
    assert "2 crowds (RLE)" in printed
    assert f"{tmp_path / 'val_labels'}: semantic labels, 0 to 5" in printed
    names = f"(names in {tmp_path / 'classes.txt'})"
    assert f"background, disc, square, triangle, star, ring {names}" in printed
    assert str(tmp_path / "val_panoptic.json") in printed
