"""A SimMIM pre-training is the same training however often it is interrupted."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.utils import comm
from processes import start, together
from small_pretraining import (
    FOREVER,
    RECIPE,
    Recorder,
    small_backbone,
    train,
    weights,
    write_images,
)

from swinv2_backbone.d2.pretraining.masked import find_images
from swinv2_backbone.d2.pretraining.simmim import Pretraining


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


def assert_same_weights(one: Path, other: Path) -> None:
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def both(images: Path, output: Path, workers: int) -> tuple[dict, dict]:
    """The losses of a training in one go, and of one that was broken off and resumed."""
    recipe = dataclasses.replace(RECIPE, num_workers=workers)
    whole = train(images, output / "whole", recipe)
    broken_off = train(images, output / "parts", recipe, stop=5)
    return whole, broken_off | train(images, output / "parts", recipe, resume=True)


@pytest.mark.parametrize(
    ("workers", "world"),
    [(2, 1), *(pytest.param(0, world, marks=pytest.mark.slow) for world in (1, 2))],
)
def test_a_resumed_training_is_bitwise_the_one_in_one_go(folder, tmp_path, workers, world):
    if world == 1:
        whole, parts = both(folder, tmp_path, workers)
    else:
        (whole, parts), *_ = together(2, both, folder, tmp_path, workers, folder=tmp_path)
    assert len(whole) == 7 and len(set(whole.values())) == 7
    assert parts == whole
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    # Of what was broken off the last periodic checkpoint is from before; pictures are replaced.
    assert sorted(path.name for path in (tmp_path / "parts" / "reconstructions").iterdir()) == [
        "0000003.png",
        "0000006.png",
        "0000007.png",
    ]


def without_drop_path(images: Path, output: Path) -> list[float]:
    torch.set_num_threads(1)
    torch.manual_seed(comm.get_rank())  # the wrapper gives all the weights of the first
    backbone = small_backbone(drop_path_rate=0.0)
    run = Pretraining(backbone, find_images(images), output, RECIPE, device="cpu")
    recorder = Recorder()
    run.step.register_hooks([recorder] if comm.is_main_process() else [])
    run.train()
    return list(recorder.losses.values())


def test_two_processes_are_one_with_twice_the_batch(folder, tmp_path):
    one = without_drop_path(folder, tmp_path / "one")
    two, none = together(2, without_drop_path, folder, tmp_path / "two", folder=tmp_path / "logs")
    assert none == []
    assert two == pytest.approx(one, rel=1e-4)


def test_the_loss_of_what_is_hidden_falls(folder, tmp_path):
    recipe = dataclasses.replace(RECIPE, iterations=60, lr=3e-3, period=FOREVER)
    losses = list(train(folder, tmp_path, recipe).values())
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])


def test_a_signal_ends_a_training_after_its_iteration_and_it_goes_on(folder, tmp_path):
    recipe = dataclasses.replace(RECIPE, iterations=FOREVER, period=FOREVER, warmup=2)
    log = tmp_path / "out.txt"
    process = start(train, folder, tmp_path / "run", recipe, log=log)
    while process.is_alive() and not (log.exists() and "Starting training" in log.read_text()):
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143, log.read_text()
    (last,) = re.findall(r"SIGTERM: stopped after iteration (\d+)", log.read_text())
    stop = int(last) + 3
    resumed = train(folder, tmp_path / "run", recipe, resume=True, stop=stop)
    assert list(resumed) == [stop - 2, stop - 1]


def test_a_training_goes_on_only_as_it_was_begun(folder, tmp_path):
    train(folder, tmp_path, stop=4)
    other = dataclasses.replace(RECIPE, mask_ratio=0.5, lr=2e-3, num_workers=1)
    words = "has mask_ratio 0.6, not 0.5; lr 0.001, not 0.002: use the same options"
    with pytest.raises(ValueError, match=words):
        train(folder, tmp_path, other, resume=True)


def test_a_step_is_one_batch_with_the_papers_optimizer(folder, tmp_path):
    recipe = dataclasses.replace(RECIPE, amp_dtype="bfloat16")
    run = Pretraining(small_backbone(), find_images(folder), tmp_path, recipe, device="cpu")
    assert run.step.amp_dtype == torch.bfloat16
    assert run.step.clip == {"kind": "full_model", "value": 5.0, "norm_type": 2.0}
    assert isinstance(run.step.optimizer, torch.optim.AdamW)
    assert run.step.optimizer.defaults["betas"] == (0.9, 0.999)
    run.train()
    assert run.step.data_loader.images == RECIPE.iterations * RECIPE.batch_size


def test_other_images_at_a_resume_are_noticed(folder, tmp_path, caplog):
    train(folder, tmp_path, stop=4)
    train(folder, tmp_path, resume=True, stop=4)
    assert "other images" not in caplog.text
    train(folder / "0", tmp_path, resume=True, stop=4)
    assert "other images (5) than those it began with (10)" in caplog.text


def test_a_finished_training_is_not_trained_again(folder, tmp_path):
    train(folder, tmp_path)
    before = weights(tmp_path)
    assert train(folder, tmp_path, resume=True) == {}
    assert all(torch.equal(value, before[name]) for name, value in weights(tmp_path).items())
