"""A user's own COCO-format dataset from config keys."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from swinv2_backbone.d2.config import load_config
from swinv2_backbone.d2.data.custom import check_masks, class_names, register_custom_datasets

CATEGORIES = [{"id": 9, "name": "fig"}, {"id": 4, "name": "date"}]
SQUARE = [[1, 1, 5, 1, 5, 5, 1, 5]]


def write(folder: Path, **changes) -> Path:
    """A dataset of one image and one object under ``folder``; returns its JSON."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(images / "a.png"), np.zeros((8, 10, 3), np.uint8))
    annotation = {
        "id": 31,
        "image_id": 7,
        "category_id": 9,
        "iscrowd": 0,
        "bbox": [1, 1, 4, 4],
        "area": 16,
        "segmentation": SQUARE,
    }
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": 8, "width": 10}],
        "annotations": [annotation],
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
    for name in names:
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def test_dataset_is_registered_and_selected_with_classes_in_id_order(tmp_path, config):
    cfg = config(write(tmp_path))
    register_custom_datasets(cfg)
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


ANNOTATION = {"id": 31, "image_id": 7, "category_id": 9, "bbox": [1, 1, 4, 4]}


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
            ["1 of the 1 images", "b.png"],
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
    with pytest.raises(ValueError, match="list.json.*no images, annotations, categories"):
        register_custom_datasets(config(tmp_path / "list.json"))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match="broken.json.*not JSON"):
        register_custom_datasets(config(tmp_path / "broken.json"))


def test_a_builtin_name_is_not_taken_over(tmp_path, config):
    with pytest.raises(ValueError, match="coco_2017_train"):
        register_custom_datasets(
            config(write(tmp_path), "DATASETS.CUSTOM.TRAIN.NAME", "coco_2017_train")
        )


def test_training_and_test_must_agree_about_the_classes(tmp_path, config):
    train = write(tmp_path / "train")
    test = write(
        tmp_path / "test",
        annotations=[],
        categories=[{"id": 1, "name": "fig"}, {"id": 2, "name": "nut"}],
    )
    cfg = config(
        train,
        "DATASETS.CUSTOM.TEST.NAME",
        f"{tmp_path.name}_TEST",
        "DATASETS.CUSTOM.TEST.JSON",
        str(test),
        "DATASETS.CUSTOM.TEST.IMAGES",
        str(test.parent / "images"),
    )
    with pytest.raises(ValueError, match="fig, nut.*date, fig"):
        register_custom_datasets(cfg)


def test_masks_the_mask_head_could_not_use_are_found_before_training(tmp_path, config):
    rle = {"size": [8, 10], "counts": [9, 2, 69]}
    annotation = {
        "id": 31,
        "image_id": 7,
        "category_id": 9,
        "iscrowd": 0,
        "bbox": [1, 1, 4, 4],
        "area": 16,
        "segmentation": rle,
    }
    path = write(tmp_path, annotations=[annotation])
    with pytest.raises(ValueError, match="annotation 31.*INPUT.MASK_FORMAT bitmask"):
        check_masks(config(path, "MODEL.MASK_ON", "True"))
    check_masks(config(path, "MODEL.MASK_ON", "True", "INPUT.MASK_FORMAT", "bitmask"))
    path = write(
        tmp_path, annotations=[{k: v for k, v in annotation.items() if k != "segmentation"}]
    )
    with pytest.raises(ValueError, match="annotation 31.*MODEL.MASK_ON False"):
        check_masks(config(path, "MODEL.MASK_ON", "True"))
    check_masks(config(path))


def test_class_names_survive_in_a_saved_config_without_the_json(tmp_path, config):
    path = write(tmp_path)
    cfg = config(path)
    register_custom_datasets(cfg)
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
    register_custom_datasets(cfg)
    assert cfg.DATASETS.TEST == () and len(cfg.DATASETS.TRAIN) == 1
    untouched = load_config("", ["MODEL.DEVICE", "cpu", *coco])
    register_custom_datasets(untouched)
    assert untouched.DATASETS.TEST == ("coco_2017_val",)


def test_evaluation_needs_no_training_set(tmp_path, config):
    cfg = config(write(tmp_path), "DATASETS.CUSTOM.TRAIN.JSON", "nowhere.json", split="TEST")
    register_custom_datasets(cfg, ("TEST",))
    assert len(cfg.DATASETS.TEST) == 1


def test_keys_that_the_evaluation_reads_are_asked_for_before_training(tmp_path, config):
    path = write(tmp_path, annotations=[ANNOTATION])
    with pytest.raises(ValueError, match="id 31.*no iscrowd, area"):
        register_custom_datasets(config(path, split="TEST"))
    register_custom_datasets(config(path))  # training does without
