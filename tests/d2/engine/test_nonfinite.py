"""A loss that is not finite stops all processes before the step (R13 of docs/RELIABILITY.md)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import small_training
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from processes import together
from small_training import config

from swinv2_backbone.d2.config.sections import OPTIONS
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.engine.step import TrainingStep
from swinv2_backbone.d2.engine.step_report import NonFiniteError
from swinv2_backbone.d2.engine.step_statistics import StepStatistics
from swinv2_backbone.d2.engine.trainer import Trainer


@pytest.fixture(scope="module", autouse=True)
def dataset(tmp_path_factory):
    yield small_training.register(tmp_path_factory.mktemp("images"))
    small_training.forget()


class Spoil(HookBase):
    """Make the losses of one process ``value`` in some iterations; keep the weights before each."""

    def __init__(self, model, rank: int, iterations: tuple[int, ...], value: float):
        self.model, self.rank, self.iterations, self.value = model, rank, iterations, value
        self.weights: dict[int, list[torch.Tensor]] = {}
        self.batches: dict[int, list[str]] = {}
        model.register_forward_pre_hook(self._look)
        model.register_forward_hook(self._spoil)

    def before_step(self) -> None:
        self.weights[self.trainer.iter] = [p.detach().clone() for p in self.model.parameters()]

    def _look(self, model, inputs) -> None:
        self.batches[self.trainer.iter] = [record["file_name"] for record in inputs[0]]

    def _spoil(self, model, inputs, losses):
        if comm.get_rank() == self.rank and self.trainer.iter in self.iterations:
            return {name: loss * self.value for name, loss in losses.items()}


def spoiled(folder: Path, iterations: tuple[int, ...], value: float, allowed: int) -> dict:
    """Train with bad losses in the last process; returns the weights and errors of this process."""
    torch.set_num_threads(1)
    cfg = config(folder, 6, 100, SOLVER__MAX_NONFINITE_STEPS=allowed)
    cfg.SOLVER.EMA.ENABLED = False
    trainer = Trainer(cfg)
    trainer.resume_or_load(False)
    model = trainer.checkpointer.model
    spoil = Spoil(model, comm.get_world_size() - 1, iterations, value)
    trainer.register_hooks([spoil])
    error = None
    try:
        trainer.train()
    except FloatingPointError as found:
        error = str(found)
    return {
        "error": error,
        "iteration": trainer.iter,
        "before": spoil.weights,
        "after": [p.detach() for p in model.parameters()],
        "batches": spoil.batches,
        "skipped": trainer._trainer.nonfinite,
    }


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other))


@pytest.mark.parametrize("value", [math.nan, pytest.param(math.inf, marks=pytest.mark.slow)])
def test_all_processes_stop_before_the_step_and_name_the_images(tmp_path, value, record_figures):
    first, second = together(2, spoiled, tmp_path, (3,), value, 0, folder=tmp_path / "logs")
    for found in (first, second):
        assert found["iteration"] == 3
        assert equal(found["after"], found["before"][3])
        assert "not finite at iteration 3" in found["error"]
        for file in second["batches"][3]:
            assert file in found["error"]
    record = json.loads((tmp_path / "nonfinite_0000003.json").read_text())
    assert [one["finite"] for one in record["processes"]] == [True, False]
    assert [one["files"] for one in record["processes"]] == [
        first["batches"][3],
        second["batches"][3],
    ]
    assert [iteration for iteration, _ in record["grad_norms"]] == [0, 1, 2, 3]
    assert all(norm > 0 for _, norm in record["grad_norms"][:3])
    assert record["grad_norms"][3][1] == "nan"
    assert not (tmp_path / "model_final.pth").exists()
    record_figures("R13", f"{value}: both processes stopped, weights as before, images named")


def test_as_many_steps_as_configured_are_skipped_and_counted(tmp_path):
    first, second = together(2, spoiled, tmp_path, (2, 4), math.nan, 2, folder=tmp_path / "logs")
    for found in (first, second):
        assert found["error"] is None and found["skipped"] == 2
        assert equal(found["before"][2], found["before"][3])
        assert not equal(found["before"][3], found["before"][4])
        assert all(p.isfinite().all() for p in found["after"])
    assert equal(first["after"], second["after"])
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert lines[-1]["nonfinite_steps"] == 2
    assert {path.name for path in tmp_path.glob("nonfinite_*")} == {
        "nonfinite_0000002.json",
        "nonfinite_0000004.json",
    }


def test_one_more_than_configured_ends_the_training(tmp_path):
    found = spoiled(tmp_path, (1, 2), math.nan, allowed=1)
    assert found["iteration"] == 2 and found["error"].endswith(
        "2 non-finite steps; 1 may be skipped"
    )


def test_a_gradient_that_is_not_finite_counts_as_well(tmp_path):
    """The loss is finite, but its gradient is not: sqrt at 0."""
    torch.set_num_threads(1)
    trainer = Trainer(config(tmp_path, 3, 100))
    trainer.resume_or_load(False)
    model = trainer.checkpointer.model
    before = [p.detach().clone() for p in model.parameters()]
    parameter = next(p for p in model.parameters() if p.requires_grad)
    model.register_forward_hook(
        lambda model, inputs, losses: losses | {"root": (parameter.sum() * 0).sqrt()}
    )
    with pytest.raises(FloatingPointError, match="not finite at iteration 0"):
        trainer.train()
    assert equal([p.detach() for p in model.parameters()], before)


@pytest.mark.parametrize(
    ("losses", "grad_norm", "scale", "taken"),
    [
        ((1.0, 1.0), 2.0, None, True),
        ((1.0, math.nan), 2.0, None, False),
        ((1.0, 1.0), math.nan, None, False),
        ((1.0, math.inf), 2.0, 1024.0, False),
        ((1.0, 1.0), math.inf, 1024.0, True),  # the scaler skips it, and reduces its scale
        ((1.0, 1.0), math.inf, 1.0, False),  # the scale cannot be reduced further
    ],
)
def test_a_step_is_taken_if_all_processes_have_finite_statistics(losses, grad_norm, scale, taken):
    model = torch.nn.Linear(1, 1)
    step = TrainingStep(model, [], torch.optim.SGD(model.parameters(), lr=1.0))
    if scale:
        step.grad_scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    statistics = [StepStatistics({"loss": loss}, grad_norm, 0.0, [], {}, 0) for loss in losses]
    assert step._can_step(statistics) == taken


def test_the_error_has_the_option_that_allows_more_steps():
    assert issubclass(NonFiniteError, FloatingPointError)
    assert OPTIONS[NonFiniteError.option].yacs == "SOLVER.MAX_NONFINITE_STEPS"
    assert OPTIONS[NonFiniteError.option].lazy == "train.max_nonfinite_steps"


def test_a_negative_number_of_steps_is_refused():
    words = r"SOLVER\.MAX_NONFINITE_STEPS must be an integer, at least 0, got -1"
    with pytest.raises(ValueError, match=words):
        load_config("", ["MODEL.DEVICE", "cpu", "SOLVER.MAX_NONFINITE_STEPS", "-1"])
