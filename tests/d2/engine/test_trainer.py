"""``Trainer`` as users subclass it in train_net scripts of their own."""

from __future__ import annotations

import pytest
import small_training
import torch
from detectron2.engine import HookBase
from detectron2.evaluation import DatasetEvaluator

from swinv2_backbone.d2.config.rules import ConfigError
from swinv2_backbone.d2.engine.trainer import Trainer


@pytest.fixture(autouse=True)
def data(tmp_path):
    small_training.register(tmp_path / "data")
    yield
    small_training.forget()


class Counting(DatasetEvaluator):
    """An evaluator that counts images."""

    def reset(self) -> None:
        self.images = 0

    def process(self, inputs: list[dict], outputs: list) -> None:
        self.images += len(inputs)

    def evaluate(self) -> dict:
        return {"bbox": {"AP": float(self.images)}}


def spying(called: list[str]) -> type[Trainer]:
    """A subclass whose builders write down that they were called."""

    class Own(Trainer):
        @classmethod
        def build_model(cls, cfg):
            called.append("model")
            return super().build_model(cfg)

        def build_optimizer(self, cfg, model):  # as a method of the object, too
            called.append("optimizer")
            return torch.optim.SGD(model.parameters(), lr=1e-4)

        @classmethod
        def build_lr_scheduler(cls, cfg, optimizer):
            called.append("scheduler")
            return super().build_lr_scheduler(cfg, optimizer)

        @classmethod
        def build_train_loader(cls, cfg):
            called.append("train loader")
            return super().build_train_loader(cfg)

        @classmethod
        def build_test_loader(cls, cfg, dataset_name):
            called.append("test loader")
            return super().build_test_loader(cfg, dataset_name)

        @classmethod
        def build_evaluator(cls, cfg, dataset_name):  # without a folder, as many write it
            called.append("evaluator")
            return Counting()

        def build_hooks(self):
            called.append("hooks")
            return [*super().build_hooks(), Last(called)]

        def build_writers(self):
            called.append("writers")
            return []

    return Own


class Last(HookBase):
    def __init__(self, called: list[str]):
        self.called = called

    def after_train(self) -> None:
        self.called.append("own hook")


def test_every_build_method_of_a_subclass_is_honored(tmp_path):
    called: list[str] = []
    cfg = small_training.config(tmp_path, 1, 1, DATASETS__TEST=(small_training.NAME,))
    trainer = spying(called)(cfg)
    trainer.resume_or_load(False)
    assert trainer.train()["bbox"]["AP"] == 8
    assert isinstance(trainer._trainer.optimizer, torch.optim.SGD)
    assert sorted(called) == sorted(
        [
            *("model", "optimizer", "scheduler", "train loader", "test loader", "evaluator"),
            *("hooks", "writers", "own hook"),
        ]
    )


def test_a_trainer_neither_changes_nor_freezes_the_config(tmp_path):
    cfg = small_training.config(tmp_path, 1, 1)
    text = cfg.dump()
    Trainer(cfg)
    assert cfg.dump() == text and not cfg.is_frozen()


def test_a_trainer_checks_the_config_that_it_is_given(tmp_path):
    cfg = small_training.config(tmp_path, 1, 1, SOLVER__ACCUMULATE=3, SOLVER__LAYER_DECAY=0.0)
    with pytest.raises(ConfigError) as error:
        Trainer(cfg)
    assert len(error.value.faults) == 2


def test_sharding_needs_several_processes_to_train_but_not_to_load(tmp_path):
    cfg = small_training.config(tmp_path, 1, 1, SOLVER__SHARDING="optimizer")
    with pytest.raises(ConfigError, match="SOLVER.SHARDING 'optimizer' needs several processes"):
        Trainer(cfg)
