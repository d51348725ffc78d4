"""Images that stand in both a training and a test set."""

from __future__ import annotations

import builtins
import json
import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from small_configs import lazy_config

from swinv2_backbone.d2.config.lazy import plan_from_lazy
from swinv2_backbone.d2.data.datasets.coco import register_coco
from swinv2_backbone.d2.data.datasets.selected import warn_of_images_in_both
from swinv2_backbone.d2.data.datasets.semantic import register_semantic
from swinv2_backbone.d2.data.storage import digests
from swinv2_backbone.d2.data.validation.overlap import images_in_both, overlap_warning
from swinv2_backbone.d2.engine.prepare import prepare


def write(folder: Path, **contents: bytes) -> list[str]:
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [str(folder / name) for name in contents]


@pytest.fixture
def reads(monkeypatch):
    """The files that are opened, and how often."""
    found: list[str] = []

    def counted(path, *args, **kwargs):
        found.append(str(path))
        return real(path, *args, **kwargs)

    real = builtins.open
    monkeypatch.setattr("builtins.open", counted)
    return found


def test_files_of_equal_content_are_found_under_any_name(tmp_path):
    train = write(tmp_path / "train", a=b"apple", b=b"banana", c=b"cherry", d=b"date")
    test = write(tmp_path / "test", x=b"cherry", y=b"orange", z=b"banana", new=b"figs")
    assert images_in_both(train, test) == [(test[0], train[2]), (test[2], train[1])]
    assert images_in_both(test, train) == [(train[1], test[2]), (train[2], test[0])]
    assert images_in_both(train, []) == images_in_both([], test) == []


def test_only_files_of_equal_sizes_are_read(tmp_path, reads):
    train = write(tmp_path / "train", a=b"a" * 10, b=b"b" * 20)
    test = write(tmp_path / "test", x=b"x" * 20, y=b"y" * 30)
    reads.clear()
    assert images_in_both(train, test) == []
    assert sorted(reads) == sorted([train[1], test[0]])


def test_files_of_equal_size_are_compared_to_the_last_byte(tmp_path):
    one = bytes(100_000)
    for place in (0, 50_000, 99_999):
        other = bytearray(one)
        other[place] = 1
        paths = write(tmp_path, one=one, other=bytes(other), same=one)
        assert images_in_both(paths[:1], paths[1:]) == [(paths[2], paths[0])]


def test_the_same_file_is_not_read_at_all(tmp_path, reads):
    (train,) = write(tmp_path, a=b"apple")
    os.symlink(train, tmp_path / "link")
    os.link(train, tmp_path / "hard")
    test = [train, str(tmp_path / "link"), str(tmp_path / "hard"), f"{tmp_path}/./a"]
    reads.clear()
    assert images_in_both([train], test) == [(path, train) for path in test]
    assert reads == []


def test_files_that_cannot_be_read_are_skipped(tmp_path):
    train, test = write(tmp_path / "train", a=b"apple"), write(tmp_path / "test", x=b"apple")
    nowhere = str(tmp_path / "nowhere")
    folder = str(tmp_path / "train")
    assert images_in_both([nowhere, folder, *train], [nowhere, folder, *test])[-1] == (
        test[0],
        train[0],
    )


def test_digests_are_kept_for_unchanged_files(tmp_path, reads):
    train = write(tmp_path / "train", a=b"apple", b=b"banana")
    test = write(tmp_path / "test", x=b"apple", y=b"fig")
    known: dict = {}
    expected = [(test[0], train[0])]
    assert images_in_both(train, test, known) == expected
    assert set(known) == {train[0], test[0]}
    kept = dict(known)
    reads.clear()
    assert images_in_both(train, test, known) == expected
    assert sorted(reads) == sorted([train[0], test[0]]) and known == kept  # the samples alone
    os.utime(train[0], ns=(1, 1))
    images_in_both(train, test, known)
    assert known[train[0]].modified == 1 and known[train[0]].digest == kept[train[0]].digest


def test_words_tell_the_extent():
    pairs = [(f"t/{n}", f"a/{n}") for n in range(7)]
    some = overlap_warning(pairs, "test", "train", 20, 30)
    assert some.startswith("7 of the 20 images of the test set test are also in")
    assert some.endswith("t/4 (is a/4), ...")
    assert "All images (7)" in overlap_warning(pairs, "test", "train", 7, 30)
    assert "test is the training set train: both have the same 7" in overlap_warning(
        pairs, "test", "train", 7, 7
    )
    assert overlap_warning([], "test", "train", 7, 7) == ""


# ---- Before a training


@pytest.fixture
def names(tmp_path):
    names = [f"{tmp_path.name}_{split}" for split in ("train", "test")]
    yield names
    for name in names:
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    cv2.imwrite(str(path), noise)


def warned(names: list[str], caplog) -> str:
    train, test = names
    cfg = lazy_config("mask_rcnn_swinv2")
    cfg.dataloader.train.dataset.names, cfg.dataloader.test.dataset.names = train, test
    cfg.model.roi_heads.num_classes = 1
    cfg.train.init_checkpoint = ""
    with caplog.at_level(logging.WARNING, "swinv2_backbone"):
        prepare(plan_from_lazy(cfg))
    return caplog.text


def objects(folder: Path, name: str, seeds: list[int]) -> None:
    for seed in seeds:
        image(folder / name / f"{name}{seed}.png", seed)
    sizes = {"height": 8, "width": 8}
    content = {
        "images": [
            {"id": n, "file_name": f"{name}{seed}.png", **sizes} for n, seed in enumerate(seeds)
        ],
        "annotations": [
            {"id": n + 1, "image_id": n, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16}
            | {"iscrowd": 0}
            for n in range(len(seeds))
        ],
        "categories": [{"id": 1, "name": "nut"}],
    }
    (folder / f"{name}.json").write_text(json.dumps(content))
    register_coco(name, folder / f"{name}.json", folder / name, masks=False)


def test_images_in_both_sets_are_told_before_a_training(tmp_path, names, caplog):
    objects(tmp_path, names[0], [1, 2, 3])
    objects(tmp_path, names[1], [7, 3, 8, 1])
    text = warned(names, caplog)
    assert f"2 of the 4 images of the test set {names[1]} are also in" in text
    assert f"{names[1]}3.png (is {tmp_path}/{names[0]}/{names[0]}3.png)" in text


def test_a_test_set_that_is_the_training_set_is_told(tmp_path, names, caplog):
    objects(tmp_path, names[0], [1, 2])
    objects(tmp_path, names[1], [2, 1])
    assert f"The test set {names[1]} is the training set {names[0]}" in warned(names, caplog)


def test_sound_sets_get_no_warning(tmp_path, names, caplog):
    objects(tmp_path, names[0], [1, 2])
    objects(tmp_path, names[1], [3])
    assert warned(names, caplog) == ""


def test_semantic_sets_are_compared_too(tmp_path, names, caplog):
    (tmp_path / "names.txt").write_text("ground\ntree\n")
    for name, seeds in zip(names, ([1, 2], [2, 5])):
        for seed in seeds:
            image(tmp_path / name / "images" / f"{name}{seed}.png", seed)
            (tmp_path / name / "labels").mkdir(exist_ok=True)
            labels = np.arange(64, dtype=np.uint8).reshape(8, 8) % 2
            cv2.imwrite(str(tmp_path / name / "labels" / f"{name}{seed}.png"), labels)
        folders = (tmp_path / name / "images", tmp_path / name / "labels", tmp_path / "names.txt")
        register_semantic(name, *folders)
    with caplog.at_level(logging.WARNING, "swinv2_backbone"):
        warn_of_images_in_both(names[:1], names[1:])
    assert "1 of the 2 images" in caplog.text


def test_digests_are_kept_for_the_next_run(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(digests, "KEPT_FROM", 1)
    train, test = write(tmp_path / "train", a=b"apple"), write(tmp_path / "test", x=b"apple")
    for name, files in (("kept_train", train), ("kept_test", test)):
        MetadataCatalog.get(name).image_files = files
    try:
        warn_of_images_in_both(["kept_train"], ["kept_test"], tmp_path / "cache")
        reads.clear()
        warn_of_images_in_both(["kept_train"], ["kept_test"], tmp_path / "cache")
        assert [path for path in reads if path in (*train, *test)] == [*train, *test]  # samples
        (tmp_path / "cache" / digests.FILE).write_text('{"a": 3}')
        assert digests.load_digests(tmp_path / "cache") == {}  # damaged
    finally:
        for name in ("kept_train", "kept_test"):
            MetadataCatalog.remove(name)
