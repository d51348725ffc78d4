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
from swinv2_backbone.d2.engine.evaluate import Evaluate
from swinv2_backbone.d2.engine.finite import describe_nonfinite
from swinv2_backbone.d2.engine.step import TrainingStep
from swinv2_backbone.d2.engine.step_report import NonFiniteError, NonFiniteSteps
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


class Diverge(HookBase):
    """Let the model itself end as Detectron2's does on proposals that are not finite."""

    def __init__(self, model, iterations: tuple[int, ...]):
        self.iterations, self.batches = iterations, {}
        model.register_forward_pre_hook(self._end)

    def _end(self, model, inputs) -> None:
        self.batches[self.trainer.iter] = [record["file_name"] for record in inputs[0]]
        if self.trainer.iter in self.iterations:
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN.")


def diverged(folder: Path, iterations: tuple[int, ...], allowed: int) -> tuple[Trainer, Diverge]:
    trainer = Trainer(config(folder, 5, 100, SOLVER__MAX_NONFINITE_STEPS=allowed))
    trainer.resume_or_load(False)
    diverge = Diverge(trainer.checkpointer.model, iterations)
    trainer.register_hooks([diverge])
    return trainer, diverge


def test_a_model_that_finds_nan_itself_ends_the_training_with_a_record(tmp_path):
    trainer, diverge = diverged(tmp_path, (2,), 0)
    with pytest.raises(NonFiniteError, match="not finite at iteration 2") as error:
        trainer.train()
    assert all(file in str(error.value) for file in diverge.batches[2])
    record = json.loads((tmp_path / "nonfinite_0000002.json").read_text())
    assert record["processes"][0]["files"] == diverge.batches[2]


def test_a_step_whose_model_finds_nan_itself_can_be_skipped(tmp_path):
    trainer, _ = diverged(tmp_path, (0, 3), 2)
    trainer.train()
    assert trainer._trainer.nonfinite == 2 and (tmp_path / "model_final.pth").is_file()


def test_one_of_several_processes_that_finds_nan_says_where_its_record_is(tmp_path, monkeypatch):
    """The others wait for its gradient until the launcher ends them."""
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "get_rank", lambda: 1)
    steps, error = NonFiniteSteps(5, str(tmp_path)), FloatingPointError("Inf/NaN.")
    with pytest.raises(NonFiniteError, match=r"Inf/NaN. At iteration 7, on a.png.*cannot be skip"):
        steps.diverge(7, ["a.png"], error)
    record = json.loads((tmp_path / "nonfinite_0000007_1.json").read_text())
    assert record == {"iteration": 7, "files": ["a.png"], "error": "Inf/NaN."}


def spoil(part: str, trainer: Trainer) -> None:
    """Put a NaN into one of the parts of a checkpoint."""
    step, average = trainer._trainer, trainer.average
    with torch.no_grad():
        if part == "weights":
            next(trainer.checkpointer.model.parameters()).view(-1)[0] = math.nan
        elif part == "average":
            next(average.averaged.parameters()).view(-1)[0] = math.inf
        else:
            next(iter(step.optimizer.state.values()))["exp_avg"].view(-1)[0] = math.nan


@pytest.mark.parametrize("part", ["weights", "average", "optimizer"])
def test_a_checkpoint_that_is_not_finite_is_neither_saved_nor_tagged(part, tmp_path):
    trainer = Trainer(config(tmp_path, 2, 1))
    trainer.resume_or_load(False)
    trainer.train()
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.pth")}
    tag = (tmp_path / "last_checkpoint").read_text()
    spoil(part, trainer)
    with pytest.raises(FloatingPointError, match="is not saved.*not finite.*lower learning rate"):
        trainer.checkpointer.save("model_0000007", iteration=7)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.pth")} == before
    assert (tmp_path / "last_checkpoint").read_text() == tag


@pytest.mark.parametrize("part", ["weights", "average", "optimizer"])
def test_resuming_falls_back_from_a_checkpoint_that_is_not_finite(
    part, tmp_path, monkeypatch, caplog
):
    trainer = Trainer(config(tmp_path, 3, 2))
    trainer.resume_or_load(False)
    trainer.train()
    spoil(part, trainer)
    with monkeypatch.context() as patch:  # as a version without the check saved it
        patch.setattr(type(trainer.checkpointer), "_nonfinite", lambda *_: "")
        with trainer._trainer.collected():
            trainer.checkpointer.save("model_final", iteration=2)
    resumed = Trainer(config(tmp_path, 3, 2))
    resumed.resume_or_load(True)
    assert resumed.start_iter == 2  # after model_0000001
    assert "not finite" in caplog.text and "Using the previous checkpoint" in caplog.text


def test_weights_that_are_not_finite_are_not_evaluated(tmp_path, monkeypatch):
    trainer = Trainer(config(tmp_path, 2, 100))
    monkeypatch.setattr(trainer.training, "_evaluate", lambda *_: pytest.fail("evaluated"))
    spoil("average", trainer)
    hook = next(one for one in trainer._hooks if isinstance(one, Evaluate))
    trainer.iter = 0
    with pytest.raises(FloatingPointError, match="nothing to evaluate: 1 tensors"):
        hook.run()


def test_tensors_that_cannot_be_checked_pass():
    odd = {
        "float8": torch.zeros(2).to(torch.float8_e4m3fn),
        "sparse": torch.eye(2).to_sparse(),
        "meta": torch.empty(2, device="meta"),
    }
    assert describe_nonfinite(odd, odd) == ""
    assert "complex" in describe_nonfinite({"complex": torch.tensor([1j * math.nan])}, ["complex"])


def test_infinite_buffers_are_no_fault():
    mask = {"mask": torch.tensor([-math.inf]), "weight": torch.zeros(1), "count": torch.tensor(3)}
    assert describe_nonfinite(mask, ["weight", "count"]) == ""
    mask["weight"][0] = math.inf
    assert "such as weight" in describe_nonfinite(mask, ["weight"])
    assert "optimizer.0.step" in describe_nonfinite({}, [], optimizer={0: {"step": mask["mask"]}})


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
