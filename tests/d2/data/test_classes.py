"""Classes of training and test files, matched by name."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from small_configs import lazy_config

from swinv2_backbone.d2.config.lazy import plan_from_lazy
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.datasets.classes import difference, match_categories
from swinv2_backbone.d2.data.datasets.coco import register_coco
from swinv2_backbone.d2.data.datasets.custom import (
    ClassNames,
    check_class_count,
    class_names,
    register_custom_datasets,
)
from swinv2_backbone.d2.data.datasets.selected import check_same_classes
from swinv2_backbone.d2.data.validation.report import Report
from swinv2_backbone.d2.engine.prepare import class_faults, register_datasets
from swinv2_backbone.d2.evaluation.evaluators import build_evaluator

FRUIT = ["apple", "banana", "cherry"]
TRAIN = {"apple": 1, "banana": 2, "cherry": 3}
# Test files as people have them: category ids by name.
FILES = {
    "the same": {"apple": 1, "banana": 2, "cherry": 3},
    "other ids": {"apple": 0, "banana": 7, "cherry": 90},
    "another order": {"cherry": 1, "apple": 2, "banana": 3},
    "a subset with its ids": {"apple": 1, "cherry": 3},
    "a subset numbered anew": {"banana": 1, "cherry": 2},
    "a subset in another order": {"cherry": 0, "banana": 1},
    "one class": {"cherry": 1},
    "a root class": {"fruit": 0, "apple": 1, "banana": 2, "cherry": 3},
}


def content_of(ids: dict[str, int], *objects: str) -> dict:
    """A file of one image with an object of each of the classes, side by side."""
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": ids[name],
            "bbox": [10 * number, 2, 8, 8],
            "area": 64,
            "iscrowd": 0,
        }
        for number, name in enumerate(objects, 1)
    ]
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 12, "width": 100}],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }


def write(folder: Path, content: dict) -> dict[str, str]:
    """Write a file and its image; return the keys of a split."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(images / "a.png"), np.zeros((12, 100, 3), np.uint8))
    (folder / "all.json").write_text(json.dumps(content))
    return {"JSON": str(folder / "all.json"), "IMAGES": str(images)}


@pytest.fixture
def names(tmp_path):
    """The names of the two datasets, forgotten afterwards."""
    names = {split: f"{tmp_path.name}_{split}" for split in ("TRAIN", "TEST")}
    yield names
    for name in names.values():
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


@pytest.fixture
def config(tmp_path, names):
    """Builds a YAML config on a training and a test file."""

    def build(test: dict, *opts: str, train: dict | None = None, count: int = 3):
        files = {"TEST": write(tmp_path / "test", test)}
        files["TRAIN"] = write(tmp_path / "train", train or content_of(TRAIN, *TRAIN))
        keys = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path / "output")]
        keys += ["MODEL.ROI_HEADS.NUM_CLASSES", str(count)]
        for split, values in files.items():
            keys += [f"DATASETS.CUSTOM.{split}.NAME", names[split]]
            keys += [w for key in values for w in (f"DATASETS.CUSTOM.{split}.{key}", values[key])]
        return load_config("", [*keys, *opts])

    return build


def categories_of(name: str) -> list[int]:
    (record,) = DatasetCatalog.get(name)
    return [entry["category_id"] for entry in record["annotations"]]


@pytest.mark.parametrize("kind", FILES)
def test_test_files_get_the_outputs_of_the_model(kind, config, names):
    present = [name for name in FRUIT if name in FILES[kind]]
    cfg = register_custom_datasets(config(content_of(FILES[kind], *present)))
    assert cfg.DATASETS.CUSTOM.CLASSES == FRUIT
    assert categories_of(names["TEST"]) == [FRUIT.index(name) for name in present]
    assert MetadataCatalog.get(names["TEST"]).thing_classes == FRUIT
    assert categories_of(names["TRAIN"]) == [0, 1, 2]
    check_same_classes(list(names.values()), "thing_classes")


@pytest.mark.parametrize("kind", FILES)
def test_perfect_detections_have_an_ap_of_100_under_the_right_names(kind, config, names, tmp_path):
    present = [name for name in FRUIT if name in FILES[kind]]
    register_custom_datasets(config(content_of(FILES[kind], *present)))
    evaluator = build_evaluator(names["TEST"], str(tmp_path / "results"))
    evaluator.reset()
    found = Instances((12, 100))
    numbers = range(1, len(present) + 1)
    found.pred_boxes = Boxes(torch.tensor([[10.0 * n, 2, 10 * n + 8, 10] for n in numbers]))
    found.pred_classes = torch.tensor([FRUIT.index(name) for name in present])
    found.scores = torch.ones(len(present))
    evaluator.process(DatasetCatalog.get(names["TEST"]), [{"instances": found}])
    results = evaluator.evaluate()["bbox"]
    assert results["AP"] == pytest.approx(100)
    by_class = {name: results[f"AP-{name}"] for name in FRUIT}
    assert [name for name in FRUIT if by_class[name] > 99] == present
    assert [name for name in FRUIT if np.isnan(by_class[name])] == sorted({*FRUIT} - {*present})


def test_a_file_in_the_order_of_the_training_is_not_copied(config, names):
    cfg = config(content_of(FILES["other ids"], "banana"))
    register_custom_datasets(cfg)
    assert MetadataCatalog.get(names["TEST"]).json_file == cfg.DATASETS.CUSTOM.TEST.JSON


def test_what_was_matched_is_told(config, caplog):
    with caplog.at_level(logging.WARNING, "swinv2_backbone"):
        register_custom_datasets(config(content_of({"cherry": 1, "nut": 2, "apple": 4}, "apple")))
    assert "categories without annotations that the training does not have: 'nut' (id 2)" in (
        caplog.text
    )
    matched = "'apple' (id 4, now 1), 'banana' is absent (id 2), 'cherry' (id 1, now 3)"
    assert matched in caplog.text


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ({"apple": 1, "cherry": 3}, [1, 2, 3]),
        ({"apple": 4, "cherry": 9}, [4, 5, 9]),  # the file's own, with room between them
        ({"apple": 4, "cherry": 5}, [1, 2, 3]),  # no room
        ({"cherry": 7}, [5, 6, 7]),
        ({"cherry": 1}, [1, 2, 3]),  # not -1
        ({"banana": 2, "apple": 3}, [1, 2, 3]),
    ],
)
def test_ids_of_the_file_stay_where_their_order_allows(ids, expected):
    entries = [{"id": number, "name": name, "color": "red"} for name, number in ids.items()]
    used = dict.fromkeys(ids.values(), 1)
    found, changed = match_categories(entries, used, FRUIT, Report("a.json"))
    assert [(entry["id"], entry["name"]) for entry in found] == list(zip(expected, FRUIT))
    assert all(("color" in entry) == (entry["name"] in ids) for entry in found)
    place = dict(zip(FRUIT, expected))
    assert {key: changed.get(key, key) for key in used} == {ids[n]: place[n] for n in ids}
    assert [entry["id"] for entry in entries] == list(ids.values())  # unchanged


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Apple", "apple"),
        (" apple", "apple"),
        ("sweet-cherry", "sweet cherry"),
        ("sweet_cherry", "sweet cherry"),
        ("SweetCherry", "sweet cherry"),
        ("cafe\u0301", "caf\u00e9"),
    ],
)
def test_names_that_differ_in_their_spelling_are_pointed_at(name, near):
    report, model = Report("a.json"), ["apple", "caf\u00e9", "sweet cherry"]
    match_categories([{"id": 3, "name": name}], {3: 2}, model, report)
    assert f"{name!r} (id 3, 2 annotations; did you mean {near!r}?)" in str(report)
    assert "must be equal to the letter" in str(report)


def test_a_class_that_the_training_lacks_is_named(config):
    test = content_of({"apple": 1, "nut": 2}, "nut", "apple")
    with pytest.raises(ValueError) as error:
        register_custom_datasets(config(test))
    text = str(error.value)
    words = ["CUSTOM.TEST", "annotated classes that", "'nut' (id 2, 1 annotation)", "'banana'"]
    assert [word for word in words if word not in text] == []
    assert "NUM_CLASSES" not in text


def test_the_number_of_classes_is_that_of_the_training_file(config):
    test = content_of({"apple": 1, "banana": 2}, "apple")
    with pytest.raises(ValueError, match=r"TRAIN.*train/all.json has 3 .*; set MODEL.*CLASSES 3$"):
        register_custom_datasets(config(test, count=2))


def test_a_saved_config_decides_when_only_evaluating(config, names, tmp_path):
    saved = ["DATASETS.CUSTOM.CLASSES", repr(FRUIT), "DATASETS.CUSTOM.TRAIN.JSON", "nowhere.json"]
    cfg = config(content_of({"cherry": 1, "banana": 2}, "cherry"), *saved)
    assert register_custom_datasets(cfg, ("TEST",)).DATASETS.CUSTOM.CLASSES == FRUIT
    assert categories_of(names["TEST"]) == [2]
    assert class_names(cfg) == FRUIT


def test_the_training_file_decides_if_no_names_are_saved(config, names):
    cfg = config(content_of({"cherry": 1, "banana": 2}, "cherry"))
    register_custom_datasets(cfg, ("TEST",))
    assert categories_of(names["TEST"]) == [2]
    assert class_names(cfg) == FRUIT


def test_without_the_training_no_number_is_recommended(config, caplog):
    alone = ["DATASETS.CUSTOM.TRAIN.JSON", "nowhere.json"]
    test = content_of({"cherry": 1, "banana": 2}, "cherry")
    for function in (lambda c: register_custom_datasets(c, ("TEST",)), class_names):
        with pytest.raises(ValueError, match="DATASETS.CUSTOM.CLASSES") as error:
            function(config(test, *alone))
        assert "NUM_CLASSES 2" not in str(error.value)
    with caplog.at_level(logging.WARNING, "swinv2_backbone"):
        register_custom_datasets(config(test, *alone, count=2), ("TEST",))
    assert "classes of the training are not known" in caplog.text


def test_the_root_class_of_an_exporter_is_no_class_of_the_training(config, names):
    root = {"name": "fruit", "id": 0, "supercategory": "none"}
    train = content_of(TRAIN, *TRAIN)
    for entry in train["categories"]:
        entry["supercategory"] = "fruit"
    train["categories"].insert(0, root)
    cfg = config(content_of({"cherry": 1, "banana": 2}, "cherry"), train=train)
    assert class_names(cfg) == FRUIT
    register_custom_datasets(cfg, ("TEST",))
    assert categories_of(names["TEST"]) == [2]
    assert register_custom_datasets(cfg).DATASETS.CUSTOM.CLASSES == FRUIT


# ---- LazyConfig


@pytest.fixture
def lazy(tmp_path, names):
    """Builds the plan of a LazyConfig on a training and a test file."""

    def build(test: dict, train: dict | None = None, **how):
        cfg = lazy_config("mask_rcnn_swinv2")
        contents = {"TRAIN": train or content_of(TRAIN, *TRAIN), "TEST": test}
        cfg.datasets = {}
        for split, content in contents.items():
            files = write(tmp_path / split.lower(), content)
            cfg.datasets[split.lower()] = L(register_coco)(
                name=names[split],
                json_file=files["JSON"],
                images=files["IMAGES"],
                masks=False,
                output_dir="${train.output_dir}",
                for_evaluation=split == "TEST",
            )
        cfg.datasets.test.update(how)
        cfg.train.output_dir = str(tmp_path / "output")
        cfg.model.roi_heads.num_classes = 3
        return plan_from_lazy(cfg)

    return build


@pytest.mark.parametrize("splits", [("train", "test"), ("test",)])
def test_a_lazyconfig_matches_the_test_file_with_the_training_file(splits, lazy, names):
    plan = lazy(content_of({"cherry": 1, "banana": 2}, "cherry"))
    register_datasets(plan, splits)
    assert categories_of(names["TEST"]) == [2]
    assert list(class_faults(plan, [names["TEST"]])) == []
    assert "classes" not in plan.config.datasets.test


def test_a_lazyconfig_may_name_the_classes(lazy, names):
    order = ["cherry", "banana", "apple"]
    register_datasets(lazy(content_of({"banana": 1}, "banana"), classes=order), ("test",))
    assert MetadataCatalog.get(names["TEST"]).thing_classes == order


def test_a_lazyconfig_takes_the_classes_that_the_training_is_given(lazy, names, tmp_path):
    plan = lazy(content_of({"banana": 1}, "banana"))
    plan.config.datasets.train.classes = order = ["cherry", "banana", "apple"]
    Path(tmp_path / "train" / "all.json").unlink()
    register_datasets(plan, ("test",))
    assert MetadataCatalog.get(names["TEST"]).thing_classes == order


def test_a_lazyconfig_without_the_training_is_told_no_number(lazy, names, tmp_path):
    plan = lazy(content_of({"cherry": 1, "banana": 2}, "cherry"))
    Path(tmp_path / "train" / "all.json").unlink()
    register_datasets(plan, ("test",))
    (fault,) = class_faults(plan, [names["TEST"]], trained=False)
    assert "num_classes=" not in fault and "datasets.test.classes" in fault


# ---- Datasets registered elsewhere


def test_a_difference_is_described():
    assert difference(["b", "a"], ["a", "b"]) == "the order differs"
    words = difference(["Apple", "nut"], ["apple", "banana"])
    assert words == (
        "'Apple', 'nut' not among them; did you mean 'apple' by 'Apple'?; 'apple', 'banana' missing"
    )


# ---- A model of another project


def foreign(*opts: str):
    model = ["MODEL.META_ARCHITECTURE", "SlotDetector", "MODEL.DEVICE", "cpu"]
    return load_config("", [*model, *opts], ["small_project:add_slots_config"])


def test_the_number_of_classes_of_another_projects_model_is_only_warned_of(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("swinv2_backbone"), "propagate", True)
    classes = ClassNames("my.json", ["a", "b", "c"])
    check_class_count(foreign("MODEL.SLOTS.NUM_CLASSES", "3"), classes)
    assert not caplog.messages
    check_class_count(foreign("MODEL.SLOTS.NUM_CLASSES", "4"), classes)
    assert "my.json has 3 classes, but no MODEL.*.NUM_CLASSES" in caplog.text


@pytest.mark.parametrize("kind", ["thing_classes", "stuff_classes"])
def test_another_projects_model_has_the_classes_of_its_test_set(kind):
    MetadataCatalog.get("foreign_test").set(**{kind: ["a", "b"]})
    try:
        assert class_names(foreign("DATASETS.TEST", "('foreign_test',)")) == ["a", "b"]
    finally:
        MetadataCatalog.remove("foreign_test")


def test_another_projects_model_may_learn_from_labels():
    labels = ["DATASETS.CUSTOM.TRAIN.LABELS", "labels", "DATASETS.CUSTOM.NAMES", "names.txt"]
    with pytest.raises(ValueError, match="names.txt.* cannot be read"):
        register_custom_datasets(foreign(*labels), ("TRAIN",))
    with pytest.raises(ValueError, match="LABELS are for MODEL.META_ARCHITECTURE Semantic"):
        register_custom_datasets(load_config("", ["MODEL.DEVICE", "cpu", *labels]), ("TRAIN",))
