"""One step of optimization: accumulation, clipping, metrics."""

import contextlib
import dataclasses

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.engine import parallel, training
from swinv2_backbone.d2.engine import step as step_module
from swinv2_backbone.d2.engine.step import TrainingStep
from swinv2_backbone.d2.engine.step_report import write_metrics
from swinv2_backbone.d2.engine.step_statistics import StepStatistics, broken_images, file_names
from swinv2_backbone.d2.engine.trainer import Trainer


class Regression(nn.Module):
    """The mean over a batch of (w x)^2 / 2 and of w x."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))

    def forward(self, batch: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        x = torch.stack(batch) @ self.w
        return {"loss_square": (x**2).mean() / 2, "loss_linear": x.mean()}


def after_a_step(batches: list[list[torch.Tensor]], accumulate: int) -> tuple:
    """Return the weight after one step, and the metrics that were written."""
    model = Regression()
    step = TrainingStep(
        model, batches, torch.optim.SGD(model.parameters(), lr=0.1), accumulate=accumulate
    )
    metrics = take_step(step)
    return model.w.detach(), metrics


def take_step(step: TrainingStep) -> dict[str, float]:
    """Take a step; returns the metrics that it writes."""
    with EventStorage() as storage:
        step.run_step()
    return {name: value for name, (value, _) in storage.latest().items()}


def test_a_step_in_parts_is_the_step_of_the_whole_batch():
    torch.manual_seed(0)
    images = list(torch.randn(6, 2, dtype=torch.float64))
    whole, losses = after_a_step([images], accumulate=1)
    parts, summed = after_a_step([images[:2], images[2:4], images[4:]], accumulate=3)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    assert {"loss_square", "loss_linear", "total_loss"} < losses.keys()
    for name, loss in losses.items():
        if name != "data_time":
            assert summed[name] == pytest.approx(loss, rel=1e-12)


def test_the_loader_gives_the_parts_of_a_step():
    with pytest.raises(ValueError, match="SOLVER.ACCUMULATE 3 must divide.*IMS_PER_BATCH 16"):
        load_config("", ["MODEL.DEVICE", "cpu", "SOLVER.ACCUMULATE", "3"])


class Quadratic(nn.Module):
    """(a^2 + b^2) / 2, whose gradient is (a, b)."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.tensor([4.0]))

    def forward(self, data):
        self.amp = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
        return {"loss": (self.a**2 + self.b**2).sum() / 2}

    @property
    def point(self) -> tuple[float, float]:
        return self.a.item(), self.b.item()


def step_with(model: nn.Module, lr: float, **settings) -> TrainingStep:
    batches = [None] * 10
    return TrainingStep(model, batches, torch.optim.SGD(model.parameters(), lr=lr), **settings)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("full_model", (0.6, 0.8)),
        ("norm", (1.0, 1.0)),
        ("value", (1.0, 1.0)),
        (None, (3.0, 4.0)),
    ],
)
def test_gradients_are_clipped_as_the_config_says(kind, expected):
    clip = [
        "SOLVER.CLIP_GRADIENTS.ENABLED",
        str(kind is not None),
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
        kind or "value",
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE",
        "1.0",
    ]
    plan, model = Trainer.plan_of(load_config("", ["MODEL.DEVICE", "cpu", *clip])), Quadratic()
    plan = dataclasses.replace(plan, factories=plan.factories._replace(train_loader=lambda: [None]))
    step = training._build_step(plan, model, torch.optim.SGD(model.parameters(), lr=1.0))
    assert take_step(step)["grad_norm"] == pytest.approx(5.0)  # before clipping
    moved = (3 - model.a.item(), 4 - model.b.item())
    assert moved == pytest.approx(expected, abs=1e-4)


def test_a_run_without_gradient_scaling_can_be_resumed_with_it():
    model = Quadratic()
    step = TrainingStep(model, [None], torch.optim.SGD(model.parameters(), lr=1.0))
    state = step.state_dict()
    assert state["grad_scaler"] == {}
    step.grad_scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    step.load_state_dict(state)
    assert step.grad_scaler.get_scale() == 8


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_of_a_step_are_forgotten_before_the_next(accumulate):
    model = Quadratic()
    step = step_with(model, 0.1, accumulate=accumulate)
    take_step(step)
    take_step(step)
    assert model.point == pytest.approx((3 * 0.9**2, 4 * 0.9**2))


def test_float16_is_what_the_model_runs_in_and_only_it_scales_gradients():
    model = Quadratic()
    for dtype, scaled in ((torch.float16, True), (torch.bfloat16, False), (None, False)):
        step = step_with(model, 0.1, amp_dtype=dtype)
        take_step(step)
        assert model.amp == (dtype or False)
        assert step.grad_scaler.is_enabled() == scaled


def scaling(step: TrainingStep) -> TrainingStep:
    step.grad_scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)
    return step


def test_clipping_sees_gradients_that_are_not_scaled(monkeypatch):
    seen, clip = [], step_module.clip_gradients

    def spied(parameters, **settings):
        seen.extend(p.grad.item() for p in parameters)
        clip(parameters, **settings)

    monkeypatch.setattr(step_module, "clip_gradients", spied)
    model = Quadratic()
    step = scaling(step_with(model, 1.0, clip={"kind": "full_model", "value": 1.0}))
    take_step(step)
    assert seen == [3.0, 4.0]
    assert model.point == pytest.approx((3 - 0.6, 4 - 0.8), abs=1e-4)
    assert step.grad_scaler.get_scale() == 16


def test_a_step_whose_scaled_gradients_overflow_is_skipped():
    model = Quadratic()
    model.a.register_hook(lambda gradient: gradient * float("inf"))
    step = scaling(step_with(model, 1.0))
    take_step(step)
    assert model.point == (3.0, 4.0)
    assert step.grad_scaler.get_scale() == 4


class Fails(Quadratic):
    """A model that finds NaN itself in its first forward."""

    calls = 0

    def forward(self, data):
        self.calls += 1
        if self.calls == 1:
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN.")
        return super().forward(data)


def test_the_scale_is_not_changed_by_a_step_without_gradients(tmp_path):
    model = Fails()
    step = scaling(step_with(model, 1.0, max_nonfinite=1, output_dir=str(tmp_path)))
    take_step(step)
    assert step.nonfinite == 1 and model.point == (3.0, 4.0)
    take_step(step)
    assert step.nonfinite == 1 and model.point != (3.0, 4.0)


class Distributed(nn.Module):
    """A stand-in for ``DistributedDataParallel`` that records when gradients would be exchanged."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.exchanging = model, True
        self.forwards, self.backwards = [], []
        model.a.register_hook(lambda _: self.backwards.append(self.exchanging))

    @contextlib.contextmanager
    def no_sync(self):
        self.exchanging = False
        yield
        self.exchanging = True

    def forward(self, data):
        self.forwards.append(self.exchanging)
        return self.model(data)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_processes_exchange_gradients_in_the_last_part_of_a_step_alone(monkeypatch, accumulate):
    monkeypatch.setattr(parallel, "DistributedDataParallel", Distributed)
    model = Distributed(Quadratic())
    step = step_with(model, 0.1, accumulate=accumulate)
    take_step(step)
    expected = [False] * (accumulate - 1) + [True]
    assert model.forwards == model.backwards == expected


def statistics(**fields) -> StepStatistics:
    empty = {"losses": {}, "grad_norm": 1.0, "data_time": 0.0, "files": [], "broken": {}}
    return StepStatistics(**{**empty, "signal": 0, **fields})


def test_metrics_are_means_over_processes_but_the_longest_wait():
    first = statistics(losses={"a": 1.0, "b": 4.0}, data_time=0.5, grad_norm=3.0)
    second = statistics(losses={"a": 3.0, "b": 5.0}, data_time=2.0, grad_norm=3.0)
    with EventStorage() as storage:
        write_metrics([first, second], nonfinite=0)
    assert {name: value for name, (value, _) in storage.latest().items()} == {
        "data_time": 2.0,
        "grad_norm": 3.0,
        "total_loss": 6.5,
        "a": 2.0,
        "b": 4.5,
    }


def test_broken_images_are_those_of_all_processes():
    found = [statistics(broken={"1.png": "cut short"}), statistics(broken={"2.png": "empty"})]
    assert broken_images(found) == {"1.png": "cut short", "2.png": "empty"}


def test_file_names_are_read_from_batches_of_records_alone():
    records = [{"file_name": "1.png"}, {"image": None}]
    assert file_names(records) == ["1.png"]
    assert file_names(torch.zeros(2)) == file_names([torch.zeros(2)]) == []


def test_a_run_of_an_earlier_version_goes_on_with_fused_steps():
    """Its optimizer had none; GradScaler relies on the optimizer that was built."""
    images = [[torch.ones(2, dtype=torch.float64)]] * 4

    def built(fused: bool | None) -> TrainingStep:
        model = Regression()
        return TrainingStep(model, images, torch.optim.AdamW(model.parameters(), fused=fused))

    earlier, later = built(None), built(True)
    take_step(earlier)
    later.model.load_state_dict(earlier.model.state_dict())
    later.load_state_dict(earlier.state_dict())
    for step in (earlier, later):
        take_step(step)
    assert [step.optimizer.param_groups[0]["fused"] for step in (earlier, later)] == [None, True]
    torch.testing.assert_close(later.model.w, earlier.model.w, rtol=1e-6, atol=0)
