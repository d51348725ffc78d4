"""What is refused, and what is not, before a training starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_training
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from omegaconf import DictConfig
from PIL import Image

from swinv2_backbone.d2.config.lazy import plan_from_lazy
from swinv2_backbone.d2.config.rules import ConfigError, validate
from swinv2_backbone.d2.data.datasets.coco import register_coco
from swinv2_backbone.d2.engine.prepare import prepare
from swinv2_backbone.d2.engine.training import Training


@pytest.fixture(autouse=True)
def data(tmp_path):
    small_training.register(tmp_path / "data")
    yield
    small_training.forget()


@pytest.fixture
def cfg(tmp_path) -> DictConfig:
    cfg = small_training.lazy_training(tmp_path, 1, 1)
    cfg.model.roi_heads.num_classes = 2
    return cfg


class Nothing(DatasetEvaluator):
    """A custom evaluator."""


def own_loader(folder: str) -> list:
    """A loader of a user, with neither a named dataset nor a batch size."""
    return []


def faults(cfg: DictConfig) -> list[str]:
    with pytest.raises(ConfigError) as error:
        prepare(plan_from_lazy(cfg))
    return error.value.faults


@pytest.mark.parametrize("evaluator", ["missing", None])
def test_without_an_evaluator_nothing_is_evaluated(evaluator, cfg):
    cfg.dataloader.test.dataset.names = small_training.NAME
    cfg.dataloader.evaluator = None
    if evaluator == "missing":
        del cfg.dataloader["evaluator"]
    training = Training(prepare(validate(plan_from_lazy(cfg))))
    training.resume_or_load(False)
    assert not training.train()


def test_there_may_be_several_evaluators(cfg):
    cfg.dataloader.test.dataset.names = small_training.NAME
    cfg.dataloader.evaluator = [L(Nothing)(), L(Nothing)()]
    prepare(validate(plan_from_lazy(cfg)))


def test_a_metric_needs_a_dataset_whichever_the_evaluator(cfg):
    cfg.dataloader.evaluator = L(Nothing)()
    cfg.train.best_metric = "mine/count"
    message = "train.best_metric 'mine/count' needs exactly one dataset to test on, got 0"
    assert faults(cfg) == [message]


def test_a_training_loader_may_name_no_dataset(cfg):
    cfg.dataloader.train = L(own_loader)(folder="somewhere")
    cfg.train.accumulate = 2
    plan = prepare(validate(plan_from_lazy(cfg)))
    assert plan.factories.train_loader() == []


def test_a_test_loader_that_names_no_dataset_is_refused(cfg):
    cfg.dataloader.test = L(own_loader)(folder="somewhere")
    assert faults(cfg)[0].startswith("dataloader.test has no dataset.names")
    cfg.dataloader.evaluator = None
    plan = prepare(plan_from_lazy(cfg), rehearse=True)
    assert plan.schedule.max_iter == 4 and plan.data.test == ()


def test_a_fault_of_a_dataset_with_two_uses_is_told_once(cfg):
    cfg.model.roi_heads.num_classes = 3
    cfg.dataloader.test.dataset.names = small_training.NAME
    told = [fault for fault in faults(cfg) if "num_classes" in fault]
    assert len(told) == 1


def test_a_head_that_is_switched_off_predicts_nothing(cfg):
    assert plan_from_lazy(cfg).model.masks
    cfg.model.roi_heads.mask_head = None
    assert not plan_from_lazy(cfg).model.masks


@pytest.mark.parametrize("argument", [{"crowds": "objects"}, {"holes": "subtract"}])
def test_a_lazy_training_reads_bitmaps_if_crowds_are_objects_or_polygons_holes(
    argument, cfg, tmp_path
):
    save_file(tmp_path)
    name = f"{tmp_path.name}_own"
    files = {"json_file": str(tmp_path / "a.json"), "images": str(tmp_path)}
    cfg.datasets = {"train": L(register_coco)(name=name, **files, **argument)}
    cfg.dataloader.train.dataset.names = name
    cfg.dataloader.train.mapper.instance_mask_format = "polygon"
    plan = prepare(validate(plan_from_lazy(cfg)))
    assert plan.config.dataloader.train.mapper.instance_mask_format == "bitmask"
    assert cfg.dataloader.train.mapper.instance_mask_format == "polygon"
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def save_file(folder: Path) -> None:
    """A COCO-format file of one image and one object, of two classes."""
    Image.new("L", (10, 8)).save(folder / "a.png")
    corners = [1, 1, 5, 1, 5, 5, 1, 5]
    one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 10}],
        "annotations": [one | {"iscrowd": 0, "area": 16, "segmentation": [corners]}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    (folder / "a.json").write_text(json.dumps(content))
