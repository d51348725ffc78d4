"""A step of optimisation: accumulation and clipping."""

import pytest
import torch
from torch import nn

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.engine.step import TrainingStep
from swinv2_backbone.d2.engine.trainer import build_step


class Regression(nn.Module):
    """The mean over a batch of (w x)^2 / 2 and of w x."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))

    def forward(self, batch: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        x = torch.stack(batch) @ self.w
        return {"loss_square": (x**2).mean() / 2, "loss_linear": x.mean()}


def after_a_step(batches: list[list[torch.Tensor]], accumulate: int) -> tuple:
    """The weight after one step, and the losses that were reported."""
    model, reported = Regression(), {}
    step = TrainingStep(
        model, batches, torch.optim.SGD(model.parameters(), lr=0.1), accumulate=accumulate
    )
    step._write = lambda seen: reported.update(seen[0].losses)  # else needs a whole training
    step.run_step()
    return model.w.detach(), reported


def test_a_step_in_parts_is_the_step_of_the_whole_batch():
    torch.manual_seed(0)
    images = list(torch.randn(6, 2, dtype=torch.float64))
    whole, losses = after_a_step([images], accumulate=1)
    parts, summed = after_a_step([images[:2], images[2:4], images[4:]], accumulate=3)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    for name, loss in losses.items():
        assert summed[name] == pytest.approx(loss, rel=1e-12)


def test_the_loader_gives_the_parts_of_a_step():
    with pytest.raises(ValueError, match="SOLVER.ACCUMULATE 3 must divide.*IMS_PER_BATCH 16"):
        load_config("", ["MODEL.DEVICE", "cpu", "SOLVER.ACCUMULATE", "3"])


class Quadratic(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.tensor([4.0]))

    def forward(self, data):
        return {"loss": (self.a**2 + self.b**2).sum() / 2}


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
    cfg = load_config("", ["MODEL.DEVICE", "cpu", *clip])
    model = Quadratic()
    step = build_step(cfg, model, [None], torch.optim.SGD(model.parameters(), lr=1.0))
    step._write = lambda *_: None
    step.run_step()
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
