"""A resumed training equals one that was not interrupted, bit by bit (R2, R3 of
docs/RELIABILITY.md)."""

from __future__ import annotations

import random
import time
from itertools import product
from pathlib import Path

import pytest
import small_training
import torch
from processes import kill_after, start, together
from small_training import BrokenOffError, config, lazy_training, train

from swinv2_backbone.checkpoints.files import read_file
from swinv2_backbone.d2.engine.checkpoint import Checkpointer

ITERATIONS, PERIOD, BROKEN_OFF = 7, 3, 5  # resumed after iteration 2


@pytest.fixture(scope="module", autouse=True)
def dataset(tmp_path_factory):
    yield small_training.register(tmp_path_factory.mktemp("images"))
    small_training.forget()


def both(system: str, folder: Path, workers: int) -> tuple[dict[int, float], dict[int, float]]:
    """Return the losses of an uninterrupted training, and of an interrupted and resumed one."""
    build = {"yacs": config, "lazy": lazy_training}[system]
    whole = train(build(folder / "whole", ITERATIONS, PERIOD, workers))
    broken_off = train(build(folder / "parts", ITERATIONS, PERIOD, workers), False, BROKEN_OFF)
    # The seeds at the start of a resumed LazyConfig do not matter: the checkpoint has its own.
    resumed = train(build(folder / "parts", ITERATIONS, PERIOD, workers), resume=True)
    if broken_off:  # only the main process has losses
        assert list(broken_off) == list(range(BROKEN_OFF))
        assert list(resumed) == list(range(PERIOD, ITERATIONS))
    return whole, broken_off | resumed


def weights(folder: Path) -> dict:
    content = read_file(folder / "model_final.pth", extras=False).value
    return content["model"] | {f"trained.{k}": v for k, v in content["average"]["trained"].items()}


def assert_same_weights(one: Path, other: Path) -> None:
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert different == []


DEFAULT = [("yacs", 2, 2), ("lazy", 0, 1)]
OTHERS = [case for case in product(["yacs", "lazy"], [0, 2], [1, 2]) if case not in DEFAULT]


@pytest.mark.parametrize(
    ("system", "workers", "world"),
    [*DEFAULT, *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS)],
)
def test_resumed_losses_and_weights_are_bitwise_those_of_an_uninterrupted_training(
    tmp_path, system, workers, world, record_figures
):
    if world == 1:
        whole, parts = both(system, tmp_path, workers)
    else:
        (whole, parts), *_ = together(world, both, system, tmp_path, workers, folder=tmp_path)
    assert len(whole) == ITERATIONS and len(set(whole.values())) == ITERATIONS
    assert parts == whole
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    record_figures("R3", f"bitwise: {system}, {workers} workers, {world} processes")


def test_a_checkpoint_holds_plain_types_only(tmp_path):
    train(config(tmp_path, 2, 1))
    torch.load(tmp_path / "model_final.pth", weights_only=True)


def test_evaluations_do_not_change_a_training(tmp_path):
    plain = train(config(tmp_path / "plain", 5, 100))
    cfg = config(tmp_path / "evaluated", 5, 100)
    cfg.TEST.EVAL_PERIOD, cfg.DATASETS.TEST = 2, ()
    from swinv2_backbone.d2.engine.trainer import Trainer

    def evaluate(cls, cfg, model, evaluators=None):
        torch.rand(7)
        random.random()
        return {}

    original = Trainer.__dict__["test"]
    Trainer.test = classmethod(evaluate)
    try:
        assert train(cfg) == plain
    finally:
        Trainer.test = original


def test_a_checkpoint_of_detectron2_is_resumed_but_not_exactly(tmp_path, caplog):
    """Such a checkpoint has no generators and no position in the data."""
    train(config(tmp_path, 4, 2))
    path = tmp_path / "model_0000001.pth"
    content = read_file(path, extras=False).value
    for key in ("rng", "loader", "nonfinite", "broken"):
        del content["trainer"]["_trainer"][key]
    torch.save(content, path)
    (tmp_path / "last_checkpoint").write_text(path.name)
    resumed = train(config(tmp_path, 4, 2), resume=True)
    assert list(resumed) == [2, 3]
    assert "not exactly as it would have" in caplog.text


def resume_on_one(folder: Path) -> list[int]:
    return list(train(config(folder, 6, 3), resume=True))


def train_on_two(folder: Path) -> list[int]:
    return list(train(config(folder, 6, 3), stop_before=4))


def test_a_training_resumes_with_another_number_of_processes(tmp_path, caplog):
    together(2, train_on_two, tmp_path, folder=tmp_path / "logs")
    assert resume_on_one(tmp_path) == [3, 4, 5]
    assert "saved by 2 processes, resumed by 1" in caplog.text


# ---- R2: kill -9 at any moment


def train_to_the_end(folder: Path, iterations: int) -> None:
    train(config(folder, iterations, period=2), resume=True)


def survive_kills(folder: Path, iterations: int, seconds: float) -> int:
    """Kill a training at random moments until it completes; returns the number of kills.

    Most processes are left until their first checkpoint, so that slow machines make progress too.
    """
    rng, kills = random.Random(0), 0
    while True:
        before, patient = last_saved(folder), rng.random() < 0.8
        process = start(train_to_the_end, folder, iterations, log=folder / "log.txt")
        while patient and process.is_alive() and last_saved(folder) == before:
            time.sleep(0.01)
        if not kill_after(process, rng.uniform(0, seconds)):
            assert process.exitcode == 0, (folder / "log.txt").read_text()[-3000:]
            return kills
        kills += 1


def last_saved(folder: Path) -> str:
    path = folder / "last_checkpoint"
    return path.read_text() if path.exists() else ""


def test_killed_trainings_end_with_the_weights_of_an_uninterrupted_one(tmp_path):
    train(config(tmp_path / "whole", 10, period=2))
    (tmp_path / "killed").mkdir()
    assert survive_kills(tmp_path / "killed", 10, seconds=0.3) > 1
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("name", ["model_0000003", "model_final"])
def test_a_training_killed_right_before_a_save_has_its_final_weights(tmp_path, name, monkeypatch):
    """The period divides the iterations, so that the last checkpoint could be a periodic one."""
    train(config(tmp_path / "whole", 6, period=2))

    def killed(self, one, **kwargs):
        if one == name:
            raise BrokenOffError
        return save(self, one, **kwargs)

    save = Checkpointer.save
    monkeypatch.setattr(Checkpointer, "save", killed)
    train(config(tmp_path / "killed", 6, period=2))
    monkeypatch.undo()
    assert not (tmp_path / "killed" / "model_final.pth").exists()
    train(config(tmp_path / "killed", 6, period=2), resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.reliability
def test_a_training_killed_many_times_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path, record_figures
):
    train(config(tmp_path / "whole", 450, period=2))
    (tmp_path / "killed").mkdir()
    kills = survive_kills(tmp_path / "killed", 450, seconds=0.6)
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")
    assert kills >= 50
    record_figures("R2", f"{kills} kills of one training of 450 iterations, weights bitwise equal")
