"""Learning rate schedules: warm-up, and each kind of decay."""

import pytest
import torch
from torch import nn

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.solver.schedule import build_lr_scheduler


def config(name: str, iterations: int, warmup: int, *opts: str):
    schedule = ["SOLVER.LR_SCHEDULER_NAME", name, "SOLVER.MAX_ITER", str(iterations)]
    opts = ["MODEL.DEVICE", "cpu", *schedule, "SOLVER.WARMUP_ITERS", str(warmup), *opts]
    return load_config("", opts)


@pytest.mark.parametrize(
    ("name", "at_middle", "at_end"),
    [
        ("WarmupPolyLR", 0.5, 0.01),
        ("WarmupCosineLR", 0.5, 0.00025),
        ("WarmupMultiStepLR", 0.1, 0.01),
    ],
)
def test_schedule_warms_up_and_decays(name, at_middle, at_end):
    cfg = config(name, 100, 10, "SOLVER.STEPS", "(40, 80)")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] < 0.01 and rates[:10] == sorted(rates[:10]) and rates[9] > 0.8
    assert rates[50] == pytest.approx(at_middle, abs=0.01)
    assert rates[99] == pytest.approx(at_end, abs=0.005)


def test_poly_power_bends_the_schedule():
    cfg = config("WarmupPolyLR", 100, 0, "SOLVER.POLY_POWER", "2.0")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = build_lr_scheduler(cfg, optimizer)
    for _ in range(50):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.25)
