"""tools/benchmark.py --trainer: our trainer and Detectron2's in turns, on one config."""

from __future__ import annotations

import logging
import sys

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from scripts import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from benchmarking import trainers  # noqa: E402

from swinv2_backbone.d2 import generate_demo_dataset, load_config  # noqa: E402

CONFIG = str(ROOT / "configs" / "mask_rcnn_swinv2_demo.yaml")


@pytest.fixture
def options(tmp_path):
    """Return overrides for a few generated pictures."""
    generate_demo_dataset(tmp_path / "demo", num_train=6, num_val=2, image_size=64)
    found = ["SOLVER.IMS_PER_BATCH", "2"]
    for split, short in (("TRAIN", "train"), ("TEST", "val")):
        found += [f"DATASETS.CUSTOM.{split}.JSON", str(tmp_path / f"demo/{short}.json")]
        found += [f"DATASETS.CUSTOM.{split}.IMAGES", str(tmp_path / f"demo/{short}")]
    yield found
    logging.disable(logging.NOTSET)
    for name in ("demo_train", "demo_val"):
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)


@pytest.mark.heavy
def test_each_trainer_has_a_row_with_its_time_by_ours(options, monkeypatch):
    monkeypatch.setattr(trainers, "unfit_swin_v1", lambda: "not installed")
    made = trainers._trainers
    monkeypatch.setattr(trainers, "_trainers", lambda cfg: dict(list(made(cfg).items())[:2]))
    lines = trainers.compare(CONFIG, options, 2, None, "cpu").splitlines()
    assert lines[0].startswith(f"{CONFIG}, cpu, ")
    assert lines[-2].startswith("| ours | ") and lines[-2].endswith(" | 1.00 (1.00 - 1.00) |")
    assert lines[-1].startswith("| DefaultTrainer, SwinV2 | ")


@pytest.mark.parametrize(
    "stem, name",
    [
        ("mask_rcnn_swinv2", "build_resnet_fpn_backbone"),
        ("retinanet_swinv2_tiny", "build_retinanet_resnet_fpn_backbone"),
        ("upernet_swinv2_tiny_ade20k", "build_resnet_backbone"),
    ],
)
def test_r50_takes_the_place_of_the_swinv2(stem, name):
    cfg = load_config(str(ROOT / "configs" / f"{stem}.yaml"), ["MODEL.DEVICE", "cpu"])
    assert name == trainers._with_r50(cfg).MODEL.BACKBONE.NAME
