"""The average of the weights, and keeping the best, against sequences worked out by hand."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.engine.ema import WeightAverage
from swinv2_backbone.d2.engine.evaluate import Evaluate
from swinv2_backbone.d2.engine.signals import StopRequest


class Counting(nn.Module):
    """A weight, a float buffer and a counter, as batch norm has them."""

    def __init__(self, value: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))
        self.register_buffer("mean", torch.tensor([value]))
        self.register_buffer("steps", torch.tensor(0))

    def set(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
            self.mean.fill_(value)
            self.steps += 1


def averaged(values: list[float], decay: float) -> float:
    """The formula of the docstring, in plain numbers."""
    average = values[0]
    for n, value in enumerate(values[1:], start=1):
        d = min(decay, (1 + n) / (10 + n))
        average = d * average + (1 - d) * value
    return average


VALUES = [1.0, -2.0, 5.0, 0.5, 3.0]


@pytest.mark.parametrize("decay", [0.0, 0.2, 0.9999])
def test_average_follows_its_formula_in_weights_and_buffers(decay):
    model = Counting(100.0)  # what it starts from does not count
    average = WeightAverage(model, decay)
    for value in VALUES:
        model.set(value)
        average.update()
    expected = averaged(VALUES, decay)
    assert average.averaged.weight.item() == pytest.approx(expected, abs=1e-6)
    assert average.averaged.mean.item() == pytest.approx(expected, abs=1e-6)
    assert average.averaged.steps.item() == len(VALUES)
    assert model.weight.item() == VALUES[-1]


def test_a_checkpoint_has_the_average_as_its_model_and_resumes_both(tmp_path):
    model = Counting()
    average = WeightAverage(model, 0.9)
    for value in VALUES:
        model.set(value)
        average.update()
    Checkpointer(model, tmp_path, evaluated=average.averaged, average=average).save("model")
    state = torch.load(tmp_path / "model.pth", weights_only=True)
    assert state["model"]["weight"].item() == pytest.approx(averaged(VALUES, 0.9))

    resumed = Counting()
    again = WeightAverage(resumed, 0.9)
    Checkpointer(resumed, tmp_path, average=again).load(str(tmp_path / "model.pth"))
    assert resumed.weight.item() == VALUES[-1]
    for m, a in ((model, average), (resumed, again)):
        m.set(7.0)
        a.update()
    assert again.averaged.weight.item() == average.averaged.weight.item()
    assert again.averaged.weight.item() == pytest.approx(averaged([*VALUES, 7.0], 0.9))


def test_an_average_that_starts_at_a_resume_starts_from_the_weights_resumed(tmp_path):
    model = Counting(4.0)
    Checkpointer(model, tmp_path).save("model")
    resumed = Counting()
    average = WeightAverage(resumed, 0.9)
    Checkpointer(resumed, tmp_path, average=average).load(str(tmp_path / "model.pth"))
    average.start()
    assert average.averaged.weight.item() == 4.0  # also for an evaluation before any step
    resumed.set(5.0)
    average.update()
    assert average.averaged.weight.item() == 5.0


def test_the_average_has_the_normaliser_of_the_weights_that_were_loaded():
    model = SwinV2(16, (1, 1), num_heads=(1, 2), window_size=8, out_features=("res3",))
    average = WeightAverage(model, 0.9)
    model.set_pretrained_window_sizes(4)
    average.start()
    assert average.averaged.pretrained_window_sizes == model.pretrained_window_sizes
    with torch.no_grad():
        for one in (model, average.averaged):
            for parameter in one.parameters():
                parameter.add_(0.3)
        image = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(average.averaged.eval()(image), model.eval()(image))


class Trainer:
    """As much of a trainer as the hook needs."""

    def __init__(self, start_iter: int = 0):
        self.start_iter = self.iter = start_iter
        self.max_iter = 1000


def evaluate(
    values: list[float], folder, metric: str = "bbox/AP", start_iter: int = 0, missed: int = 0
) -> Counting:
    """Run the hook over evaluations with these results; the weight is the evaluation's number.

    Args:
        missed: number of evaluations that a resumed run makes up for.
    """
    model = Counting()
    results = iter(values)
    hook = Evaluate(
        1,
        lambda: {"bbox": {"AP": next(results)}},
        step=SimpleNamespace(stop_request=StopRequest(), stopping=0),
        best_metric=metric,
        model=model,
        output_dir=folder,
    )
    hook.trainer = Trainer(start_iter)
    with EventStorage(start_iter) as hook.trainer.storage:
        hook.before_train()
        for number in range(start_iter, start_iter + len(values) - missed):
            hook.trainer.iter = number
            model.set(float(number))
            hook.after_step()
    return model


def best(folder) -> float:
    return torch.load(folder / "model_best.pth", weights_only=True)["model"]["weight"].item()


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1.0, 3.0, 2.0], 1), ([3.0, 2.0, 3.0], 0), ([math.nan, 0.0, math.nan], 1), ([1, 2, 3], 2)],
)
def test_the_weights_of_the_highest_result_are_kept(tmp_path, values, expected):
    evaluate(values, tmp_path)
    assert best(tmp_path) == expected
    record = json.loads((tmp_path / "model_best.json").read_text())
    assert record == {"metric": "bbox/AP", "value": values[expected], "iterations": expected + 1}
    assert not (tmp_path / "last_checkpoint").exists()  # not what a training resumes from


def test_a_resumed_training_remembers_what_was_best_and_a_new_one_does_not(tmp_path):
    evaluate([1.0, 5.0], tmp_path)
    evaluate([2.0], tmp_path, start_iter=2)
    assert best(tmp_path) == 1
    evaluate([6.0], tmp_path, start_iter=3)
    assert best(tmp_path) == 3
    evaluate([], tmp_path)  # a new training that was stopped before its first evaluation ...
    evaluate([0.2, 0.5], tmp_path, start_iter=4, missed=1)  # ... and then resumed
    assert best(tmp_path) == 4


def test_without_a_metric_nothing_is_kept(tmp_path):
    evaluate([1.0], tmp_path, metric="")
    assert [path.name for path in tmp_path.iterdir()] == ["last_evaluation.json"]


def test_a_result_that_never_comes_is_an_error_with_those_that_do(tmp_path):
    with pytest.raises(ValueError, match="segm/AP.*bbox/AP"):
        evaluate([1.0], tmp_path, metric="segm/AP")
