"""The demo dataset's semantic labels and panoptic segments are those of what was drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.evaluation import COCOPanopticEvaluator
from PIL import Image

from swinv2_backbone.d2.data.loading.mapper import DatasetMapper as OurMapper
from swinv2_backbone.d2.demo import dataset as demo
from swinv2_backbone.d2.demo.panoptic import register_demo_panoptic, register_demo_segments
from swinv2_backbone.d2.evaluation.metrics import tasks_of

COUNTS = {"train": 20, "val": 5}
LABELS = {2: 1, 3: 2, 7: 3, 11: 4, 20: 5}  # of the category ids
CROWDED, EMPTY = 4, 15  # indices of an image with a crowd, and of one without objects


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> demo.DemoDataset:
    root = tmp_path_factory.mktemp("labels") / "data"
    return demo.generate_demo_dataset(root, num_train=20, num_val=5, image_size=64)


@pytest.fixture
def name():
    yield "demo_panoptic_of_a_test"
    if "demo_panoptic_of_a_test" in DatasetCatalog:
        DatasetCatalog.remove("demo_panoptic_of_a_test")
        MetadataCatalog.remove("demo_panoptic_of_a_test")


def read_gray(path: Path) -> np.ndarray:
    image = Image.open(path)
    assert image.mode == "L", "8 bit gray"
    return np.array(image)


def read_ids(path: Path) -> np.ndarray:
    """COCO's rule for the colors of a panoptic image."""
    red, green, blue = np.array(Image.open(path).convert("RGB")).astype(int).transpose(2, 0, 1)
    return red + 256 * green + 65536 * blue


def scenes(split: str) -> list[tuple[str, demo.Scene]]:
    return [(f"{i + 1:06d}.png", demo.draw_scene(0, split, i, 64)) for i in range(COUNTS[split])]


@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_are_the_class_of_what_shows_at_each_pixel(dataset, split):
    folder = {"train": dataset.train_labels, "val": dataset.val_labels}[split]
    assert folder == dataset.root / f"{split}_labels"
    assert {path.name for path in folder.iterdir()} == {name for name, _ in scenes(split)}
    for name, scene in scenes(split):
        labels = read_gray(folder / name)
        assert labels.shape == scene.image.shape[:2]
        for instance in scene.instances:
            assert (labels[instance.mask] == LABELS[instance.category_id]).all()
            labels[instance.mask] = 0
        assert not labels.any()


def test_crowds_have_a_label_and_an_empty_image_is_background(dataset):
    crowd = next(i for i in demo.draw_scene(0, "train", CROWDED, 64).instances if i.iscrowd)
    labels = read_gray(dataset.train_labels / f"{CROWDED + 1:06d}.png")
    assert (labels[crowd.mask] == LABELS[crowd.category_id]).all()
    assert not read_gray(dataset.train_labels / f"{EMPTY + 1:06d}.png").any()


def test_class_names_are_in_the_order_of_the_labels(dataset):
    names = ["background", "disc", "square", "triangle", "star", "ring"]
    assert dataset.classes == dataset.root / "classes.txt"
    assert dataset.classes.read_text().splitlines() == names
    for category in json.loads(dataset.train_json.read_text())["categories"]:
        assert names[LABELS[category["id"]]] == category["name"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_panoptic_segments_cover_every_pixel_and_are_as_described(dataset, split):
    files = dataset.split(split)
    content = json.loads(files.panoptic_json.read_text())
    assert len(content["annotations"]) == len(content["images"]) == COUNTS[split]
    for annotation, image in zip(content["annotations"], content["images"], strict=True):
        ids = read_ids(files.panoptic / annotation["file_name"])
        assert annotation["image_id"] == image["id"]
        assert ids.shape == (image["height"], image["width"])
        segments = annotation["segments_info"]
        assert sorted(s["id"] for s in segments) == np.unique(ids).tolist()
        for segment in segments:
            mask = ids == segment["id"]
            x, y, w, h = segment["bbox"]
            assert segment["area"] == mask.sum() == mask[y : y + h, x : x + w].sum()
            assert mask[y].any() and mask[y + h - 1].any()
            assert mask[:, x].any() and mask[:, x + w - 1].any()


def test_panoptic_things_are_the_instances_and_the_rest_is_one_background(dataset):
    files = dataset.split("train")
    instances, described = json.loads(files.json.read_text()), {}
    for annotation in instances["annotations"]:
        what = tuple(annotation[key] for key in ("category_id", "iscrowd", "area"))
        described.setdefault(annotation["image_id"], []).append((*what, *annotation["bbox"]))
    crowds = 0
    for annotation in json.loads(files.panoptic_json.read_text())["annotations"]:
        background, *things = annotation["segments_info"]
        assert background["category_id"] == 1 and background["iscrowd"] == 0
        found = [(t["category_id"], t["iscrowd"], t["area"], *t["bbox"]) for t in things]
        assert found == described.get(annotation["image_id"], [])
        crowds += sum(t["iscrowd"] for t in things)
    assert crowds == 2


def test_panoptic_categories_say_what_is_a_thing(dataset):
    content = json.loads(dataset.split("val").panoptic_json.read_text())
    assert {c["id"]: (c["name"], c["isthing"]) for c in content["categories"]} == {
        1: ("background", 0),
        2: ("disc", 1),
        3: ("square", 1),
        7: ("triangle", 1),
        11: ("star", 1),
        20: ("ring", 1),
    }


def test_stuff_labels_are_0_for_things_and_1_for_background(dataset):
    files = dataset.split("train")
    for name, scene in scenes("train"):
        things = np.zeros(scene.image.shape[:2], bool)
        for instance in scene.instances:
            things |= instance.mask
        np.testing.assert_array_equal(read_gray(files.stuff / name), np.where(things, 0, 1))


def test_a_background_that_is_all_covered_is_no_segment():
    mask = np.ones((4, 6), bool)
    whole = demo.Instance(7, mask, iscrowd=False, as_rle=False)
    image = np.zeros((4, 6, 3), np.uint8)
    ids, segments = demo.draw_panoptic(demo.Scene(image, image, (whole,)))
    assert [(s["category_id"], s["area"]) for s in segments] == [(7, 24)]
    assert (ids == segments[0]["id"]).all()


def test_an_unknown_split_is_named(dataset):
    with pytest.raises(ValueError, match="'test' is not one of train, val"):
        dataset.split("test")


def test_panoptic_records_have_instances_and_labels_of_one_image(dataset, name):
    register_demo_panoptic(name, dataset, "train")
    records = DatasetCatalog.get(name)
    counts = [len(scene.instances) for _, scene in scenes("train")]
    assert [len(record["annotations"]) for record in records] == counts
    for record, (file_name, scene) in zip(records, scenes("train"), strict=True):
        assert Path(record["file_name"]) == dataset.train_images / file_name
        assert Path(record["sem_seg_file_name"]) == dataset.split("train").stuff / file_name
        ids = [annotation["category_id"] for annotation in record["annotations"]]
        assert ids == [LABELS[i.category_id] - 1 for i in scene.instances]


def test_panoptic_records_feed_detectron2s_mapper(dataset, name):
    register_demo_panoptic(name, dataset, "train")
    cfg = get_cfg()
    cfg.INPUT.MASK_FORMAT, cfg.INPUT.MIN_SIZE_TRAIN = "bitmask", (64,)
    cfg.MODEL.MASK_ON = True
    fed = DatasetMapper(cfg, is_train=True)(DatasetCatalog.get(name)[CROWDED])
    covered = fed["instances"].gt_masks.tensor.any(dim=0)
    assert fed["sem_seg"].shape == fed["image"].shape[1:]
    assert len(fed["instances"]) and set(fed["sem_seg"].unique().tolist()) == {0, 1}
    assert (fed["sem_seg"][covered] == 0).float().mean() > 0.95  # resized: edges may differ


def test_predicted_panoptic_classes_become_those_of_the_file(dataset, name):
    register_demo_panoptic(name, dataset, "val")
    metadata = MetadataCatalog.get(name)
    written = json.loads(Path(metadata.panoptic_json).read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in written["categories"]}
    evaluator = COCOPanopticEvaluator(name)
    for isthing, classes in ((True, metadata.thing_classes), (False, metadata.stuff_classes)):
        for index, expected in enumerate(classes):
            if expected == "things":  # all of them together: never a segment of a prediction
                continue
            segment = {"id": 1, "category_id": index, "isthing": isthing}
            assert names[evaluator._convert_category_id(segment)["category_id"]] == expected


def test_panoptic_metadata_is_there_before_the_files_are_read(dataset, name):
    register_demo_panoptic(name, dataset, "val")
    before = MetadataCatalog.get(name).as_dict().copy()
    DatasetCatalog.get(name)
    assert MetadataCatalog.get(name).as_dict() == before
    assert before["evaluator_type"] == "coco_panoptic_seg"
    assert before["thing_dataset_id_to_contiguous_id"] == {2: 0, 3: 1, 7: 2, 11: 3, 20: 4}


def test_segments_are_the_targets_of_mask_classification(dataset, name):
    register_demo_panoptic(name, dataset, "train", separated=False)
    mapper = OurMapper(True, augmentations=[], image_format="RGB", mask_targets="panoptic")
    records = DatasetCatalog.get(name)
    for record, (file_name, scene) in zip(records, scenes("train"), strict=True):
        assert Path(record["file_name"]) == dataset.train_images / file_name
        targets = mapper(record)["instances"]
        drawn = [(LABELS[i.category_id] - 1, i.mask) for i in scene.instances if not i.iscrowd]
        free = np.ones(scene.image.shape[:2], bool)
        for instance in scene.instances:
            free &= ~instance.mask
        expected = [(5, free), *drawn]  # the background is the last class
        assert targets.gt_classes.tolist() == [label for label, _ in expected]
        np.testing.assert_array_equal(targets.gt_masks, [mask for _, mask in expected])


def test_segments_are_evaluated_without_semantic_labels(dataset, name):
    register_demo_panoptic(name, dataset, "val", separated=False)
    assert tasks_of(name) == ("bbox", "segm", "panoptic_seg")
    metadata = MetadataCatalog.get(name)
    written = json.loads(Path(metadata.panoptic_json).read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in written["categories"]}
    evaluator = COCOPanopticEvaluator(name)
    for index, expected in enumerate(metadata.stuff_classes):
        segment = {"id": 1, "category_id": index, "isthing": index < 5}
        assert names[evaluator._convert_category_id(segment)["category_id"]] == expected


def test_the_demo_is_registered_for_a_config_once(tmp_path, monkeypatch):
    demo.generate_demo_dataset(tmp_path / "datasets/demo", num_train=2, num_val=1, image_size=64)
    monkeypatch.chdir(tmp_path)
    cfg = get_cfg()
    before = cfg.dump()
    try:
        register_demo_segments(cfg)
        register_demo_segments(cfg)
        assert len(DatasetCatalog.get("demo_panoptic_train")) == 2
        assert len(DatasetCatalog.get("demo_panoptic_val")) == 1
    finally:
        for split in ("train", "val"):
            DatasetCatalog.remove(f"demo_panoptic_{split}")
            MetadataCatalog.remove(f"demo_panoptic_{split}")
    assert cfg.dump() == before


def test_a_taken_name_is_refused(dataset, name):
    register_demo_panoptic(name, dataset, "val")
    with pytest.raises(ValueError, match="demo_panoptic_of_a_test.*choose another name"):
        register_demo_panoptic(name, dataset, "train")
