"""Datasets of other formats, by keys or by register_coco: converted, never over a user's file."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from scenes import forms, image_names, masks_of, true_masks

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.datasets.coco import register_coco
from swinv2_backbone.d2.data.datasets.custom import class_names, register_custom_datasets


@pytest.fixture
def name(tmp_path):
    yield tmp_path.name
    for split in ("", "_TRAIN", "_TEST"):
        if f"{tmp_path.name}{split}" in DatasetCatalog:
            DatasetCatalog.remove(f"{tmp_path.name}{split}")
            MetadataCatalog.remove(f"{tmp_path.name}{split}")


def config(tmp_path: Path, *opts: str):
    keys = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path / "out")]
    keys += ["MODEL.ROI_HEADS.NUM_CLASSES", "2", "MODEL.MASK_ON", "True"]
    keys += ["INPUT.MASK_FORMAT", "bitmask"]
    for split in ("TRAIN", "TEST"):
        keys += [f"DATASETS.CUSTOM.{split}.NAME", f"{tmp_path.name}_{split}"]
    return load_config("", [*keys, *opts])


def test_keys_train_on_labelme_without_a_folder_of_images(tmp_path, name, caplog):
    path, images = forms.labelme(tmp_path / "labels")
    with caplog.at_level(logging.INFO):
        cfg = register_custom_datasets(config(tmp_path, "DATASETS.CUSTOM.TRAIN.JSON", str(path)))
    written = tmp_path / "out" / "datasets" / f"{name}_TRAIN_from_labelme.json"
    assert masks_of(json.loads(written.read_text())) == true_masks()
    assert f"is read as labelme, and converted to {written}" in caplog.text
    records = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])
    assert [Path(one["file_name"]).parent for one in records] == [images] * 3
    assert cfg.DATASETS.CUSTOM.CLASSES == ["date", "fig"]
    assert str(path) == cfg.DATASETS.CUSTOM.TRAIN.JSON  # the user's, also in the saved config


def test_each_split_of_a_yolo_file_has_its_own_images(tmp_path, name):
    path, images = forms.yolo(tmp_path / "yolo")
    val = images.parent / "val"
    val.mkdir()
    (images / "empty.png").rename(val / "empty.png")
    text = path.read_text().replace("val: images/train", "val: images/val")
    path.write_text(text)
    keys = [f"DATASETS.CUSTOM.{split}.JSON" for split in ("TRAIN", "TEST")]
    cfg = register_custom_datasets(config(tmp_path, keys[0], str(path), keys[1], str(path)))
    found = [DatasetCatalog.get(cfg.DATASETS[split][0]) for split in ("TRAIN", "TEST")]
    names = [image_names({"images": records}) for records in found]
    assert names == [["a.png", "b.png"], ["empty.png"]]


def test_class_names_are_known_without_registering(tmp_path):
    path, _ = forms.cvat(tmp_path / "cvat")
    assert class_names(config(tmp_path, "DATASETS.CUSTOM.TEST.JSON", str(path))) == ["date", "fig"]
    assert not (tmp_path / "out").exists()


def test_a_wrong_format_is_refused_with_the_key(tmp_path, name):
    path, _ = forms.cvat(tmp_path / "cvat")
    opts = ["DATASETS.CUSTOM.TRAIN.JSON", str(path), "DATASETS.CUSTOM.TRAIN.FORMAT", "labelme"]
    with pytest.raises(ValueError, match=r"DATASETS.CUSTOM.TRAIN: .*annotations.xml is not JSON"):
        register_custom_datasets(config(tmp_path, *opts))


def register(name: str, path: Path, folder: Path, **options) -> None:
    options = {"mask_format": "bitmask", "output_dir": str(folder)} | options
    register_coco(name, str(path), **options)


def test_an_unchanged_conversion_is_kept_and_a_users_file_is_not_replaced(tmp_path, name):
    path, _ = forms.labelme(tmp_path / "labels")
    register(name, path, tmp_path)
    written = tmp_path / "datasets" / f"{name}_from_labelme.json"
    before = written.stat().st_mtime_ns, written.stat().st_ino
    register(name, path, tmp_path)
    assert (written.stat().st_mtime_ns, written.stat().st_ino) == before
    written.write_text("{}")
    with pytest.raises(ValueError, match="in the way of the converted copy"):
        register(name, path, tmp_path)
    assert written.read_text() == "{}"


def test_a_changed_source_is_converted_anew(tmp_path, name):
    path, _ = forms.labelme(tmp_path / "labels")
    register(name, path, tmp_path)
    (path / "b.json").unlink()
    register(name, path, tmp_path)
    assert len(DatasetCatalog.get(name)) == 2


def test_a_conversion_needs_a_folder_for_its_file(tmp_path, name):
    path, _ = forms.labelme(tmp_path / "labels")
    with pytest.raises(ValueError, match="output_dir"):
        register(name, path, tmp_path, output_dir=None)


def test_a_coco_file_is_used_as_it_is(tmp_path, name):
    path, images = forms.coco(tmp_path / "coco")
    register(name, path, tmp_path, output_dir=None)
    assert MetadataCatalog.get(name).json_file == str(path)
    assert MetadataCatalog.get(name).image_root == str(images)


def test_another_source_does_not_take_over_a_name(tmp_path, name):
    register(name, forms.labelme(tmp_path / "labels")[0], tmp_path)
    with pytest.raises(ValueError, match="the name of another dataset"):
        register(name, forms.cvat(tmp_path / "cvat")[0], tmp_path)
