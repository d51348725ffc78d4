"""Trainings that end before their last iteration: early stopping, a time limit."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import small_training
import torch

from swinv2_backbone.d2.config.lazy import plan_from_lazy
from swinv2_backbone.d2.config.yacs import plan_from_yacs
from swinv2_backbone.d2.engine import early_end
from swinv2_backbone.d2.engine.early_end import EarlyStopping
from swinv2_backbone.d2.engine.evaluate import Evaluate
from swinv2_backbone.d2.engine.metrics import read_lines
from swinv2_backbone.d2.engine.trainer import Trainer
from swinv2_backbone.d2.engine.training import Training

ITERATIONS = 6


@pytest.fixture(autouse=True)
def data(tmp_path):
    small_training.register(tmp_path / "data")
    yield
    small_training.forget()


class Scripted:
    """Evaluations with given values of a metric, one after the other."""

    def __init__(self, values: list[float]):
        self.values, self.calls = iter(values), []

    def __call__(self, model, last: bool) -> dict:
        self.calls.append(last)
        return {"bbox": {"AP": next(self.values)}}


def build(dialect: str, folder: Path, values: list[float], **options):
    """A training of six iterations that evaluates after each; returns it and its evaluations."""
    scripted = Scripted(values)
    if dialect == "lazy":
        plan = plan_from_lazy(small_training.lazy_training(folder, ITERATIONS, 2))
    else:
        plan = plan_from_yacs(small_training.config(folder, ITERATIONS, 2))
    plan = plan.replaced({"evaluation.period": 1, **options})
    torch.manual_seed(7)
    np.random.seed(7)
    if dialect == "lazy":
        return Training(plan, evaluate=scripted), scripted

    class Own(Trainer):
        @classmethod
        def test(cls, cfg, model, evaluators=None):
            return scripted(model, False)

        @classmethod
        def evaluate(cls, cfg, model):
            return scripted(model, True)

    return Own(plan.config), scripted


def iterations_of(file: Path) -> int:
    return torch.load(file, weights_only=True)["iteration"] + 1


STOPPING = {"evaluation.early_stopping_metric": "bbox/AP", "evaluation.early_stopping_patience": 2}


@pytest.mark.parametrize("dialect", ["lazy", pytest.param("yacs", marks=pytest.mark.slow)])
def test_a_training_ends_when_its_metric_has_not_risen_for_the_patience(dialect, tmp_path):
    training, scripted = build(dialect, tmp_path, [1.0, 2.0, float("nan"), 2.0, 9.0], **STOPPING)
    training.resume_or_load(False)
    results = training.train()
    assert len(scripted.calls) == 4  # the second was the best, and two followed
    assert results["bbox"]["AP"] == 2.0
    assert iterations_of(tmp_path / "model_final.pth") == 4
    assert json.loads((tmp_path / "early_stopping.json").read_text()) == [
        [1, 1.0],
        [2, 2.0],
        [3, None],
        [4, 2.0],
    ]


@pytest.mark.parametrize("dialect", ["lazy", pytest.param("yacs", marks=pytest.mark.slow)])
def test_a_metric_that_rises_lets_a_training_run_to_its_end(dialect, tmp_path):
    training, scripted = build(dialect, tmp_path, [1, 1, 2, 2, 3, 3], **STOPPING)
    training.resume_or_load(False)
    training.train()
    assert len(scripted.calls) == ITERATIONS
    assert scripted.calls[-1] is True  # the last one may be augmented
    assert iterations_of(tmp_path / "model_final.pth") == ITERATIONS


def test_an_early_stop_evaluates_again_where_only_the_last_evaluation_is_augmented(tmp_path):
    augmented = {"evaluation.augmented": True}
    training, scripted = build("lazy", tmp_path, [2, 1, 1, 5], **STOPPING, **augmented)
    training.resume_or_load(False)
    assert training.train()["bbox"]["AP"] == 5
    assert scripted.calls == [False, False, False, True]


@pytest.mark.parametrize("dialect", ["yacs", pytest.param("lazy", marks=pytest.mark.slow)])
def test_a_signal_during_the_evaluation_of_an_early_stop_exits_with_its_code(dialect, tmp_path):
    augmented = {"evaluation.augmented": True}
    training, scripted = build(dialect, tmp_path, [2, 1, 1, 5], **STOPPING, **augmented)
    step = training.step if dialect == "lazy" else training.training.step

    def interrupted():
        yield from (2, 1, 1)
        step.stop_request.signal = signal.SIGTERM
        yield 5

    scripted.values = interrupted()
    training.resume_or_load(False)
    with pytest.raises(SystemExit) as end:
        training.train()
    assert end.value.code == 143
    assert iterations_of(tmp_path / "model_final.pth") == 3


@pytest.mark.parametrize("dialect", ["yacs", pytest.param("lazy", marks=pytest.mark.slow)])
def test_a_resumed_training_counts_the_evaluations_before_it(dialect, tmp_path):
    first, _ = build(dialect, tmp_path, [2, 1, 1], **STOPPING)
    first.resume_or_load(False)
    loop = first.step if dialect == "lazy" else first
    loop.register_hooks([small_training._BreakOff(2)])  # after the checkpoint of two iterations
    with pytest.raises(small_training.BrokenOffError):
        first.train()
    second, scripted = build(dialect, tmp_path, [1, 1, 1, 1], **STOPPING)
    second.resume_or_load(True)
    second.train()
    assert len(scripted.calls) == 1
    assert iterations_of(tmp_path / "model_final.pth") == 3


def test_a_training_that_had_ended_early_takes_no_step_when_it_is_resumed(tmp_path):
    first, _ = build("lazy", tmp_path, [2, 1, 1], **STOPPING)
    first.resume_or_load(False)
    first.train()
    before = (tmp_path / "model_final.pth").read_bytes()
    second, scripted = build("lazy", tmp_path, [], **STOPPING)
    second.resume_or_load(True)
    second.train()
    assert scripted.calls == [] and (tmp_path / "model_final.pth").read_bytes() == before
    patient = {**STOPPING, "evaluation.early_stopping_patience": 4}
    third, scripted = build("lazy", tmp_path, [1, 1, 1], **patient)
    third.resume_or_load(True)
    third.train()
    assert len(scripted.calls) == 2


def test_a_new_training_in_the_same_folder_forgets_earlier_evaluations(tmp_path):
    for _ in range(2):
        training, scripted = build("lazy", tmp_path, [3, 1, 1], **STOPPING)
        training.resume_or_load(False)
        training.train()
        assert len(scripted.calls) == 3


def test_a_metric_that_does_not_come_is_named(tmp_path):
    wrong = {"evaluation.early_stopping_metric": "bbox/APx"}
    training, _ = build("lazy", tmp_path, [1.0], **wrong)
    training.resume_or_load(False)
    with pytest.raises(ValueError, match="no 'bbox/APx', only bbox/AP"):
        training.train()


class Clock:
    """A clock on which each iteration takes a minute."""

    def __init__(self):
        self.minutes = 0.0

    def monotonic(self) -> float:
        self.minutes += 1
        return 60 * self.minutes


@pytest.mark.parametrize("dialect", ["yacs", pytest.param("lazy", marks=pytest.mark.slow)])
def test_a_time_limit_saves_evaluates_and_ends_and_a_resume_goes_on(dialect, tmp_path, monkeypatch):
    whole, _ = build(dialect, tmp_path / "whole", [0.0] * 9, **{"evaluation.period": 0})
    whole.resume_or_load(False)
    whole.train()
    monkeypatch.setattr(early_end, "time", Clock())
    options = {"run.time_limit": 3.0, "evaluation.period": 0}
    first, scripted = build(dialect, tmp_path / "cut", [0.5], **options)
    first.resume_or_load(False)
    assert first.train()["bbox"]["AP"] == 0.5
    assert scripted.calls == [False]  # not the last: it is not augmented
    assert not (tmp_path / "cut" / "model_final.pth").exists()
    assert iterations_of(tmp_path / "cut" / "model_0000002.pth") == 3
    monkeypatch.undo()
    second, _ = build(dialect, tmp_path / "cut", [0.0] * 9, **{"evaluation.period": 0})
    second.resume_or_load(True)
    second.train()
    ends = [
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)
        for name in ("whole", "cut")
    ]
    torch.testing.assert_close(ends[0]["model"], ends[1]["model"], rtol=0, atol=0)


def test_a_time_limit_that_comes_in_the_last_iteration_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(early_end, "time", Clock())
    options = {"run.time_limit": float(ITERATIONS), "evaluation.period": 0}
    training, scripted = build("lazy", tmp_path, [0.0] * 9, **options)
    training.resume_or_load(False)
    training.train()
    assert scripted.calls == [True]
    assert iterations_of(tmp_path / "model_final.pth") == ITERATIONS


# ---- A process that is killed between a checkpoint and its evaluation


class KilledError(Exception):
    pass


def killed_in(hook: type, method: str, monkeypatch, call: int) -> None:
    """Let a method of a hook fail at its n-th call, as if the process was killed there."""
    original, calls = getattr(hook, method), []

    def failing(self, *args):
        calls.append(args)
        if len(calls) == call:
            raise KilledError
        return original(self, *args)

    monkeypatch.setattr(hook, method, failing)


BOTH = {**STOPPING, "evaluation.best_metric": "bbox/AP", "evaluation.period": 2}


@pytest.mark.parametrize("dialect", ["lazy", pytest.param("yacs", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", ["_do_eval", "_keep_best"])
def test_an_evaluation_that_was_missed_is_made_up_for(dialect, method, tmp_path, monkeypatch):
    """Checkpoints after 2, 4 and 6 iterations; killed at the evaluation after 4."""
    whole, _ = build(dialect, tmp_path / "whole", [1.0, 3.0, 2.0], **BOTH)
    whole.resume_or_load(False)
    whole.train()
    killed_in(Evaluate, method, monkeypatch, 2)
    parts, _ = build(dialect, tmp_path / "parts", [1.0, 3.0], **BOTH)
    parts.resume_or_load(False)
    with pytest.raises(KilledError):
        parts.train()
    monkeypatch.undo()
    parts, resumed = build(dialect, tmp_path / "parts", [3.0, 2.0], **BOTH)
    parts.resume_or_load(True)
    parts.train()
    assert resumed.calls == [False, True]
    for name in ("early_stopping.json", "model_best.json", "last_evaluation.json"):
        found = [(tmp_path / each / name).read_text() for each in ("whole", "parts")]
        assert found[0] == found[1], name
    lines = [scores(tmp_path / each) for each in ("whole", "parts")]
    assert lines[0] == lines[1] == {1: 1.0, 3: 3.0, 6: 2.0}


def scores(folder: Path) -> dict[int, float]:
    lines = [values for _, values in read_lines(folder / "metrics.json") if values]
    return {one["iteration"]: one["bbox/AP"] for one in lines if "bbox/AP" in one}


@pytest.mark.parametrize("dialect", ["lazy", pytest.param("yacs", marks=pytest.mark.slow)])
def test_an_evaluation_that_was_completed_is_not_repeated(dialect, tmp_path, monkeypatch):
    training, _ = build(dialect, tmp_path, [1.0, 3.0], **BOTH)
    training.resume_or_load(False)
    killed_in(EarlyStopping, "_note", monkeypatch, 2)
    with pytest.raises(KilledError):
        training.train()
    monkeypatch.undo()
    training, resumed = build(dialect, tmp_path, [2.0], **BOTH)
    training.resume_or_load(True)
    training.train()
    assert resumed.calls == [True]
    values = json.loads((tmp_path / "early_stopping.json").read_text())
    assert values == [[2, 1.0], [4, 3.0]]


def test_an_evaluation_before_an_earlier_checkpoint_is_not_repeated(tmp_path):
    """Checkpoints after 2 and 4, the last evaluation after 5 of 6 iterations."""
    options = {"evaluation.period": 1}
    training, _ = build("lazy", tmp_path, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], **options)
    training.resume_or_load(False)
    training.train()
    for name in ("model_final.pth", "last_checkpoint"):
        (tmp_path / name).unlink()
    training, resumed = build("lazy", tmp_path, [5.0, 6.0], **options)
    training.resume_or_load(True)
    training.train()
    assert training.start_iter == 4 and resumed.calls == [False, True]


def test_a_finished_training_that_is_continued_does_not_evaluate_first(tmp_path):
    training, _ = build("lazy", tmp_path, [1.0, 2.0, 3.0], **BOTH)
    training.resume_or_load(False)
    training.train()
    training, resumed = build("lazy", tmp_path, [4.0], **BOTH, **{"schedule.max_iter": 8})
    training.resume_or_load(True)
    training.train()
    assert training.start_iter == 6 and resumed.calls == [True]


def test_a_new_training_takes_no_record_of_an_earlier_one(tmp_path, monkeypatch):
    training, _ = build("lazy", tmp_path, [9.0, 9.0, 9.0], **BOTH)
    training.resume_or_load(False)
    training.train()
    killed_in(Evaluate, "_do_eval", monkeypatch, 1)
    training, _ = build("lazy", tmp_path, [], **BOTH)
    training.resume_or_load(False)
    with pytest.raises(KilledError):
        training.train()
    monkeypatch.undo()
    training, resumed = build("lazy", tmp_path, [1.0, 2.0, 3.0], **BOTH)
    training.resume_or_load(True)
    training.train()
    assert training.start_iter == 2 and resumed.calls == [False, False, True]
    values = json.loads((tmp_path / "early_stopping.json").read_text())
    assert values == [[2, 1.0], [4, 2.0]]
