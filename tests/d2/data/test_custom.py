"""A user's own COCO-format dataset from config keys, or from Python."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import annotations_to_instances

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.datasets.coco import register_coco
from swinv2_backbone.d2.data.datasets.custom import class_names, register_custom_datasets

CATEGORIES = [{"id": 9, "name": "fig"}, {"id": 4, "name": "date"}]
SQUARE = [[1, 1, 5, 1, 5, 5, 1, 5]]
ANNOTATION = {"id": 31, "image_id": 7, "category_id": 9, "bbox": [1, 1, 4, 4]}
OBJECT = ANNOTATION | {"iscrowd": 0, "area": 16, "segmentation": SQUARE}


def write(folder: Path, **changes) -> Path:
    """A dataset of one image and one object under ``folder``; returns its JSON."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(images / "a.png"), np.zeros((8, 10, 3), np.uint8))
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": 8, "width": 10}],
        "annotations": [OBJECT],
        "categories": CATEGORIES,
    }
    path = folder / "all.json"
    path.write_text(json.dumps(content | changes))
    return path


@pytest.fixture
def config(tmp_path):
    """Builds a config on the dataset, under names of its own."""
    names = []

    def build(json_file: Path, *opts: str, classes: int = 2, split: str = "TRAIN"):
        names.append(f"{tmp_path.name}_{split}")
        return load_config(
            "",
            [
                "MODEL.DEVICE",
                "cpu",
                "OUTPUT_DIR",
                str(tmp_path / "output"),
                "MODEL.ROI_HEADS.NUM_CLASSES",
                str(classes),
                f"DATASETS.CUSTOM.{split}.NAME",
                names[-1],
                f"DATASETS.CUSTOM.{split}.JSON",
                str(json_file),
                f"DATASETS.CUSTOM.{split}.IMAGES",
                str(json_file.parent / "images"),
                *opts,
            ],
        )

    yield build
    forget(names)


@pytest.fixture
def registered():
    """Notes a name that a test registers, so that it is forgotten afterwards."""
    names = []
    yield lambda name: names.append(name) or name
    forget(names)


def forget(names: list[str]) -> None:
    for name in set(names):
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def test_dataset_is_registered_and_selected_with_classes_in_id_order(tmp_path, config):
    cfg = config(write(tmp_path))
    cfg = register_custom_datasets(cfg)
    (name,) = cfg.DATASETS.TRAIN
    assert cfg.DATASETS.CUSTOM.CLASSES == ["date", "fig"]
    (image,) = DatasetCatalog.get(name)
    assert Path(image["file_name"]).is_file()
    assert image["annotations"][0]["category_id"] == 1  # fig, id 9, the second
    assert class_names(cfg) == ["date", "fig"]


def test_registering_twice_is_no_error(tmp_path, config):
    path = write(tmp_path)
    register_custom_datasets(config(path))
    register_custom_datasets(config(path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"annotations": [ANNOTATION | {"category_id": 1}]}, ["31", "category_id 1"]),
        ({"annotations": [ANNOTATION | {"image_id": 8}]}, ["31", "image_id 8"]),
        ({"annotations": [{"id": 31, "image_id": 7, "category_id": 9}]}, ["31", "no bbox"]),
        ({"images": [{"id": 7, "height": 8, "width": 10}]}, ["images[0]", "no file_name"]),
        ({"categories": []}, ["no categories"]),
        (
            {"images": [{"id": 7, "file_name": "b.png", "height": 8, "width": 10}]},
            ["missing image files", "b.png"],
        ),
    ],
)
def test_faults_of_the_file_are_named(tmp_path, config, changes, words):
    with pytest.raises(ValueError) as error:
        register_custom_datasets(config(write(tmp_path, **changes)))
    assert all(word in str(error.value) for word in words)


def test_other_class_counts_are_refused_with_the_key_to_set(tmp_path, config):
    with pytest.raises(ValueError, match="MODEL.ROI_HEADS.NUM_CLASSES 2"):
        register_custom_datasets(config(write(tmp_path), classes=80))


def test_retinanet_has_a_class_count_of_its_own(tmp_path, config):
    with pytest.raises(ValueError, match="MODEL.RETINANET.NUM_CLASSES 2"):
        register_custom_datasets(config(write(tmp_path), "MODEL.META_ARCHITECTURE", "RetinaNet"))


def test_a_file_that_is_missing_or_not_coco_is_named(tmp_path, config):
    write(tmp_path)
    with pytest.raises(ValueError, match="nowhere.json"):
        register_custom_datasets(config(tmp_path / "nowhere.json"))
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="list.json.*no list of images, annotations, categories"):
        register_custom_datasets(config(tmp_path / "list.json"))
    (tmp_path / "numbers.json").write_text('{"images": 5, "annotations": [], "categories": {}}')
    with pytest.raises(ValueError, match="numbers.json.*no list of images, categories"):
        register_custom_datasets(config(tmp_path / "numbers.json"))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match="broken.json.*not JSON"):
        register_custom_datasets(config(tmp_path / "broken.json"))


def test_a_builtin_name_is_not_taken_over(tmp_path, config):
    with pytest.raises(ValueError, match="coco_2017_train"):
        register_custom_datasets(
            config(write(tmp_path), "DATASETS.CUSTOM.TRAIN.NAME", "coco_2017_train")
        )


def test_masks_the_mask_head_could_not_use_are_found_before_training(tmp_path, config):
    rle = {"size": [8, 10], "counts": [9, 2, 69]}
    path = write(tmp_path, annotations=[OBJECT | {"segmentation": rle}])
    with pytest.raises(ValueError, match="annotation 31(.|\n)*INPUT.MASK_FORMAT bitmask"):
        register_custom_datasets(config(path, "MODEL.MASK_ON", "True"))
    bitmask = ("INPUT.MASK_FORMAT", "bitmask")
    register_custom_datasets(config(path, "MODEL.MASK_ON", "True", *bitmask))
    path = write(tmp_path, annotations=[ANNOTATION])
    with pytest.raises(ValueError, match="annotation 31(.|\n)*MODEL.MASK_ON False"):
        register_custom_datasets(config(path, "MODEL.MASK_ON", "True"))
    register_custom_datasets(config(path))


def test_class_names_survive_in_a_saved_config_without_the_json(tmp_path, config):
    path = write(tmp_path)
    cfg = config(path)
    cfg = register_custom_datasets(cfg)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    path.unlink()
    assert class_names(load_config(str(tmp_path / "config.yaml"))) == ["date", "fig"]


def test_unknown_class_names_are_an_error_with_the_remedy():
    cfg = load_config("", ["MODEL.DEVICE", "cpu"])
    with pytest.raises(ValueError, match="DATASETS.CUSTOM.TEST.JSON"):
        class_names(cfg)


def test_a_split_that_is_not_given_is_empty_rather_than_the_one_of_coco(tmp_path, config):
    coco = ["DATASETS.TRAIN", "('coco_2017_train',)", "DATASETS.TEST", "('coco_2017_val',)"]
    cfg = config(write(tmp_path), *coco)
    cfg = register_custom_datasets(cfg)
    assert cfg.DATASETS.TEST == () and len(cfg.DATASETS.TRAIN) == 1
    untouched = load_config("", ["MODEL.DEVICE", "cpu", *coco])
    register_custom_datasets(untouched)
    assert untouched.DATASETS.TEST == ("coco_2017_val",)


def test_evaluation_needs_no_training_set(tmp_path, config):
    cfg = config(write(tmp_path), "DATASETS.CUSTOM.TRAIN.JSON", "nowhere.json", split="TEST")
    cfg = register_custom_datasets(cfg, ("TEST",))
    assert len(cfg.DATASETS.TEST) == 1


def test_what_can_be_repaired_is_repaired_in_a_copy_that_is_registered(tmp_path, config, caplog):
    path = write(tmp_path, annotations=[OBJECT | {"bbox": [6, 1, 9, 4]}, ANNOTATION])
    before = path.read_bytes()
    cfg = config(path)
    with caplog.at_level(logging.WARNING, "swinv2_backbone"):
        cfg = register_custom_datasets(cfg)
    (name,) = cfg.DATASETS.TRAIN
    copy = tmp_path / "output" / "datasets" / f"{name}.json"
    assert MetadataCatalog.get(name).json_file == str(copy)
    (image,) = DatasetCatalog.get(name)
    assert [entry["bbox"] for entry in image["annotations"]] == [[6, 1, 4, 4], [1, 1, 4, 4]]
    assert path.read_bytes() == before
    assert str(path) == cfg.DATASETS.CUSTOM.TRAIN.JSON
    assert "clipped" in caplog.text and str(copy) in caplog.text
    assert os.listdir(copy.parent) == [copy.name]


def test_a_file_without_faults_is_registered_itself(tmp_path, config):
    path = write(tmp_path)
    cfg = config(path, split="TEST")
    cfg = register_custom_datasets(cfg)
    assert MetadataCatalog.get(cfg.DATASETS.TEST[0]).json_file == str(path)
    assert not (tmp_path / "output").exists()


def test_a_repaired_copy_is_replaced_by_the_next(tmp_path, config):
    for left in (6, 7):
        cfg = config(write(tmp_path, annotations=[OBJECT | {"bbox": [left, 1, 9, 4]}]))
        cfg = register_custom_datasets(cfg)
        (image,) = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])
        assert image["annotations"][0]["bbox"][0] == left


def test_a_repaired_copy_appears_whole(tmp_path, config, monkeypatch):
    moved = []

    def replace(source: Path, target: Path) -> None:
        assert source.parent == target.parent and not target.exists()
        moved.append(json.loads(source.read_text(encoding="utf-8")))
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "replace", replace)
    cfg = config(write(tmp_path, annotations=[OBJECT | {"bbox": [6, 1, 9, 4]}]))
    with pytest.raises(ValueError, match="choose another OUTPUT_DIR .*the disk is full"):
        cfg = register_custom_datasets(cfg)
    assert moved[0]["annotations"][0]["bbox"] == [6, 1, 4, 4]
    assert os.listdir(tmp_path / "output" / "datasets") == []


def test_a_repaired_copy_never_replaces_a_file_of_the_user(tmp_path, config):
    path = write(tmp_path, annotations=[OBJECT | {"bbox": [6, 1, 9, 4]}])
    cfg = config(path)
    theirs = tmp_path / "output" / "datasets" / f"{cfg.DATASETS.CUSTOM.TRAIN.NAME}.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    with pytest.raises(ValueError, match=f"{theirs.name} is in the way"):
        cfg = register_custom_datasets(cfg)
    assert theirs.read_text() == "theirs"


def test_what_the_evaluation_lacks_is_added_in_a_copy(tmp_path, config):
    cfg = config(write(tmp_path, annotations=[ANNOTATION | {"id": 0}]), split="TEST")
    cfg = register_custom_datasets(cfg)
    content = json.loads(
        Path(MetadataCatalog.get(cfg.DATASETS.TEST[0]).json_file).read_text(encoding="utf-8")
    )
    assert content["annotations"] == [ANNOTATION | {"id": 1, "iscrowd": 0, "area": 16}]


def test_all_faults_are_told_at_once(tmp_path, config):
    faulty = [OBJECT | {"category_id": 5}, OBJECT | {"id": 32, "bbox": [50, 50, 2, 2]}]
    images = [{"id": 7, "file_name": "b.png", "height": 8, "width": 10}]
    with pytest.raises(ValueError) as error:
        register_custom_datasets(config(write(tmp_path, annotations=faulty, images=images)))
    words = ["DATASETS.CUSTOM.TRAIN", "all.json", "b.png", "category_id 5", "annotation 32"]
    assert [word for word in words if word not in str(error.value)] == []


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["DATASETS.CUSTOM.TRAIN.LABELS", "labels"], "JSON and .*LABELS are both given"),
        (["DATASETS.CUSTOM.NAMES", "names.txt"], "NAMES 'names.txt' goes with LABELS"),
        (["DATASETS.CUSTOM.TRAIN.JSON", ""], "IMAGES .* needs .*JSON .* or .*LABELS"),
        (["MODEL.META_ARCHITECTURE", "SemanticSegmentor"], "give DATASETS.CUSTOM.TRAIN.LABELS"),
        (["MODEL.META_ARCHITECTURE", "PanopticFPN"], "registered in Python"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(tmp_path, config, opts, words):
    with pytest.raises(ValueError, match=words):
        register_custom_datasets(config(write(tmp_path), *opts))


def test_the_classes_of_the_objects_count_in_a_panoptic_model(tmp_path, config):
    panoptic = ("MODEL.META_ARCHITECTURE", "PanopticFPN")
    cfg = config(write(tmp_path), *panoptic, "DATASETS.CUSTOM.CLASSES", "['date', 'fig']")
    assert class_names(cfg) == ["date", "fig"]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    with pytest.raises(ValueError, match="MODEL.ROI_HEADS.NUM_CLASSES 2"):
        class_names(cfg)


def test_a_dataset_is_registered_from_python(tmp_path, registered):
    path = write(tmp_path)
    name = registered(f"{tmp_path.name}_python")
    register_coco(name, path, tmp_path / "images")
    assert MetadataCatalog.get(name).thing_classes == ["date", "fig"]
    assert MetadataCatalog.get(name).evaluator_type == "coco"
    assert len(DatasetCatalog.get(name)) == 1
    with pytest.raises(ValueError, match="mask_format must be"):
        register_coco(name, path, tmp_path / "images", mask_format="rle")


def test_a_changed_file_is_registered_anew_with_classes_in_id_order(tmp_path, registered):
    name = registered(f"{tmp_path.name}_python")
    for categories in (CATEGORIES, [{"id": 9, "name": "apple"}, {"id": 4, "name": "plum"}]):
        register_coco(name, write(tmp_path, categories=categories), tmp_path / "images")
        DatasetCatalog.get(name)
    assert MetadataCatalog.get(name).thing_classes == ["plum", "apple"]


def test_repairing_from_python_needs_a_place_for_the_copy(tmp_path, registered):
    path = write(tmp_path, annotations=[OBJECT | {"bbox": [6, 1, 9, 4]}])
    name = registered(f"{tmp_path.name}_python")
    with pytest.raises(ValueError, match="clipped(.|\n)*output_dir"):
        register_coco(name, path, tmp_path / "images")
    register_coco(name, path, tmp_path / "images", output_dir=tmp_path)
    assert (tmp_path / "datasets" / f"{name}.json").is_file()


def test_a_failed_check_leaves_what_was_registered(tmp_path, registered):
    path = write(tmp_path)
    name = registered(f"{tmp_path.name}_python")
    register_coco(name, path, tmp_path / "images")
    write(tmp_path, categories=[])
    with pytest.raises(ValueError, match="no categories"):
        register_coco(name, path, tmp_path / "images")
    assert name in DatasetCatalog


@pytest.mark.parametrize(
    ("opts", "mask"),
    [
        (["DATASETS.CUSTOM.CROWDS", "objects"], {"size": [8, 10], "counts": [9, 2, 69]}),
        (["DATASETS.CUSTOM.HOLES", "subtract"], [*SQUARE, [2, 2, 4, 2, 4, 4, 2, 4]]),
    ],
)
def test_crowds_as_objects_and_holes_are_read_as_bitmaps(tmp_path, config, caplog, opts, mask):
    crowd = OBJECT | {"iscrowd": int(isinstance(mask, dict)), "segmentation": mask}
    path = write(tmp_path, annotations=[crowd])
    caplog.set_level(logging.INFO)
    given = config(path, *opts, "MODEL.MASK_ON", "True")
    cfg = register_custom_datasets(given)
    assert given.INPUT.MASK_FORMAT == "polygon" and cfg.INPUT.MASK_FORMAT == "bitmask"
    assert "INPUT.MASK_FORMAT is set to bitmask" in caplog.text
    (image,) = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])
    (one,) = image["annotations"]
    instances = annotations_to_instances([one], (8, 10), cfg.INPUT.MASK_FORMAT)
    assert one["iscrowd"] == 0 and instances.gt_masks.tensor.sum() == (
        2 if opts[1] == "objects" else 12
    )
    assert json.loads(path.read_text())["annotations"] == [crowd]


def test_the_default_keeps_the_mask_format_and_tells_of_crowds(tmp_path, config, caplog):
    crowd = OBJECT | {"id": 32, "iscrowd": 1}
    caplog.set_level(logging.INFO)
    cfg = register_custom_datasets(config(write(tmp_path, annotations=[OBJECT, crowd])))
    assert cfg.INPUT.MASK_FORMAT == "polygon"
    assert "fig 1 of 2 (50.0%: 1 as polygons)" in caplog.text


def test_modes_that_do_not_exist_are_refused(tmp_path, registered):
    name = registered(f"{tmp_path.name}_python")
    for key in ("crowds", "holes"):
        with pytest.raises(ValueError, match=f"{key} must be one of"):
            register_coco(name, write(tmp_path), tmp_path / "images", **{key: "drop"})
