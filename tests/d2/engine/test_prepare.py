"""What is refused, and what is not, before a training starts."""

from __future__ import annotations

import pytest
import small_training
from detectron2.config import LazyCall as L
from detectron2.evaluation import DatasetEvaluator
from omegaconf import DictConfig

from swinv2_backbone.d2.config.lazy import plan_from_lazy
from swinv2_backbone.d2.config.rules import ConfigError, validate
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
