"""The picture of training samples: written before the first iteration, and without effect on it."""

from __future__ import annotations

import logging

import pytest
from small_training import config, forget, lazy_training, register, train

from swinv2_backbone.d2.config.lazy import plan_from_lazy
from swinv2_backbone.d2.engine.samples import FILE, draw_samples


@pytest.fixture
def records(tmp_path):
    yield register(tmp_path / "images")
    forget()


@pytest.mark.parametrize("dialect", ["yaml", pytest.param("lazy", marks=pytest.mark.slow)])
def test_losses_are_the_same_with_a_picture(dialect, records, tmp_path):
    losses = []
    for wanted in (False, True):
        folder = tmp_path / str(wanted)
        if dialect == "yaml":
            cfg = config(folder, 2, 9, DATALOADER__SAMPLES_PICTURE=wanted)
        else:
            cfg = lazy_training(folder, 2, 9)
            cfg.train.samples_picture, cfg.train.seed = wanted, 7
        losses.append(train(cfg))
        assert (folder / FILE).is_file() == wanted
    assert losses[0] == losses[1] and len(losses[0]) == 2


def test_a_loader_of_the_users_own_is_told(records, tmp_path, caplog):
    plan = plan_from_lazy(lazy_training(tmp_path, 2, 9))
    with caplog.at_level(logging.INFO):
        draw_samples(plan, [])
    assert "is not written: the training loader is not build_train_loader's" in caplog.text
    assert not (tmp_path / FILE).exists()
