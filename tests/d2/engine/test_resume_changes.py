"""A resumed training takes what its config changes, and everything else from the checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import small_training
import torch
from detectron2.engine import HookBase
from detectron2.solver import LRMultiplier
from fvcore.common.param_scheduler import CosineParamScheduler
from processes import together
from small_training import config, lazy_training
from torch import nn

from swinv2_backbone.checkpoints.files import read_file
from swinv2_backbone.d2.config.lazy import plan_from_lazy
from swinv2_backbone.d2.config.rules import ConfigError
from swinv2_backbone.d2.engine.optimizer_settings import recorded_groups, regrouped, take_changes
from swinv2_backbone.d2.engine.trainer import Trainer
from swinv2_backbone.d2.engine.training import Training

ITERATIONS, SAVED = 4, 2  # resumed before iteration 2
Rates = dict[str, tuple[float, float]]  # parameter -> its learning rate and weight decay


@pytest.fixture(scope="module", autouse=True)
def dataset(tmp_path_factory):
    yield small_training.register(tmp_path_factory.mktemp("images"))
    small_training.forget()


def build(system: str, folder: Path, change: Callable = lambda cfg: None) -> Trainer | Training:
    cfg = {"yacs": config, "lazy": lazy_training}[system](folder, ITERATIONS, SAVED)
    change(cfg)
    torch.set_num_threads(1)
    return Trainer(cfg) if system == "yacs" else Training(plan_from_lazy(cfg))


def training_of(trainer: Trainer | Training) -> Training:
    return trainer.training if isinstance(trainer, Trainer) else trainer


def rates_of(training: Training) -> Rates:
    names = {parameter: name for name, parameter in training.model.named_parameters()}
    return {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in training.step.optimizer.param_groups
        for parameter in group["params"]
    }


class Recorder(HookBase):
    """The rates of each step, and the moments before the first one."""

    def __init__(self, training: Training):
        self.training, self.rates, self.moments = training, {}, {}

    def before_step(self) -> None:
        if not self.rates:
            state = self.training.step.optimizer.state
            names = self.training.model.named_parameters()
            self.moments = {n: state[p]["exp_avg"].clone() for n, p in names if state.get(p)}
        self.rates[self.trainer.iter] = rates_of(self.training)


def train(trainer: Trainer | Training, resume: bool) -> Recorder:
    trainer.resume_or_load(resume)
    training = training_of(trainer)
    recorder = Recorder(training)
    training.loop.register_hooks([recorder])
    # Before the other hooks, which change the rates after a step.
    training.loop._hooks.insert(0, training.loop._hooks.pop())
    trainer.train()
    return recorder


def expected_rates(system: str, folder: Path, change: Callable) -> dict[int, Rates]:
    """Return those of an uninterrupted training, without its steps."""
    training = training_of(build(system, folder / "expected", change))
    optimizer, schedule = training.step.optimizer, training.scheduler
    if not isinstance(schedule, LRMultiplier):
        schedule = LRMultiplier(optimizer, schedule, ITERATIONS)
    found = {}
    for iteration in range(ITERATIONS):
        found[iteration] = rates_of(training)
        optimizer.step()  # without gradients
        schedule.step()
    return {iteration: found[iteration] for iteration in range(SAVED, ITERATIONS)}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> dict[str, Path]:
    """Folders of a training of each dialect that ended with its first checkpoint."""
    folders = {}
    for system in ("yacs", "lazy"):
        folders[system] = tmp_path_factory.mktemp(system) / "run"
        train(build(system, folders[system]), resume=False)
        (folders[system] / "model_final.pth").unlink()
        (folders[system] / "last_checkpoint").write_text("model_0000001.pth")
    return folders


def keys(**values) -> Callable:
    """Return a function that sets keys, with __ for the dots."""

    def change(cfg) -> None:
        for key, value in values.items():
            *path, last = key.split("__")
            node = cfg
            for part in path:
                node = node[part]
            node[last] = value

    return change


CHANGES = {  # what is changed -> the dialect, the change, and what is told
    "rate": ("yacs", keys(SOLVER__BASE_LR=0.0005), ["SOLVER.BASE_LR 0.0001 -> 0.0005"]),
    "decay": ("yacs", keys(SOLVER__WEIGHT_DECAY=0.1), ["SOLVER.WEIGHT_DECAY 0.05 -> 0.1"]),
    "decay of norms": (
        "yacs",
        keys(SOLVER__WEIGHT_DECAY_NORM=0.05),
        ["SOLVER.WEIGHT_DECAY_NORM 0.0 -> 0.05"],
    ),
    "factors": (
        "yacs",
        keys(SOLVER__LAYER_DECAY=0.5, SOLVER__BIAS_LR_FACTOR=2.0),
        ["SOLVER.BIAS_LR_FACTOR 1.0 -> 2.0", "SOLVER.LAYER_DECAY 1.0 -> 0.5"],
    ),
    "schedule": (
        "yacs",
        keys(SOLVER__STEPS=(3,), SOLVER__WARMUP_ITERS=0),
        ["SOLVER.STEPS () -> (3,)", "SOLVER.WARMUP_ITERS 2 -> 0"],
    ),
    "lazy rate": (
        "lazy",
        keys(optimizer__params__lr=0.0005),
        ["optimizer.params.lr 0.0001 -> 0.0005"],
    ),
    "lazy factors": (
        "lazy",
        keys(optimizer__params__layer_decay=0.5, optimizer__params__weight_decay=0.1),
        [
            "optimizer.params.weight_decay 0.05 -> 0.1",
            "optimizer.params.layer_decay 1.0 -> 0.5",
        ],
    ),
}


def resumed(folders: dict[str, Path], tmp_path: Path, system: str, change: Callable) -> Recorder:
    shutil.copytree(folders[system], tmp_path / "run")
    return train(build(system, tmp_path / "run", change), resume=True)


@pytest.mark.parametrize("what", CHANGES)
def test_changed_settings_are_those_of_an_uninterrupted_training(
    interrupted, tmp_path, what, caplog
):
    caplog.set_level("INFO")
    system, change, told = CHANGES[what]
    recorder = resumed(interrupted, tmp_path, system, change)
    expected = expected_rates(system, tmp_path, change)
    assert recorder.rates.keys() == expected.keys()
    for iteration, rates in expected.items():
        assert recorder.rates[iteration].keys() == rates.keys()
        for name, pair in rates.items():
            assert recorder.rates[iteration][name] == pytest.approx(pair, rel=1e-12), name
    lines = [line.strip() for line in caplog.text.splitlines()]
    assert [line.removeprefix("changed").strip() for line in lines if line[:7] == "changed"] == told
    # The moments are those of the checkpoint, parameter by parameter.
    saved = read_file(tmp_path / "run" / "model_0000001.pth", extras=False).value["trainer"]
    state = saved.get("_trainer", saved)
    names = [name for group in state["groups"] for name in group["names"]]
    moments = {names[at]: one["exp_avg"] for at, one in state["optimizer"]["state"].items()}
    assert moments.keys() == recorder.moments.keys()
    assert [name for name in moments if not moments[name].equal(recorder.moments[name])] == []


@pytest.mark.parametrize("system", ["yacs", "lazy"])
def test_without_a_change_nothing_is_told(interrupted, tmp_path, system, caplog):
    caplog.set_level("INFO")
    recorder = resumed(interrupted, tmp_path, system, lambda cfg: None)
    assert recorder.rates == expected_rates(system, tmp_path, lambda cfg: None)
    assert "changed" not in caplog.text and "->" not in caplog.text


def test_clipping_and_averaging_are_those_of_the_config_and_told(interrupted, tmp_path, caplog):
    caplog.set_level("INFO")
    shutil.copytree(interrupted["yacs"], tmp_path / "run")
    clip = {"SOLVER__CLIP_GRADIENTS__CLIP_VALUE": 0.1, "SOLVER__EMA__DECAY": 0.5}
    trainer = build("yacs", tmp_path / "run", keys(**clip))
    trainer.resume_or_load(True)
    assert trainer.training.step.clip["value"] == 0.1
    assert trainer.training.average.decay == 0.5
    assert "SOLVER.CLIP_GRADIENTS.CLIP_VALUE 1.0 -> 0.1" in caplog.text
    assert "SOLVER.EMA.DECAY 0.9999 -> 0.5" in caplog.text
    assert "gradients clipped at 0.1" in caplog.text


def test_options_that_the_checkpoint_lacks_are_told_only_if_they_change_something(tmp_path):
    """An older version had no such option, or the option had no effect."""
    options = training_of(build("yacs", tmp_path)).options
    before = {k: v for k, v in options.state_dict().items() if not k.startswith("clipping.")}
    del before["optimizer.weight_decay_embed"], before["optimizer.layer_decay"]
    options.options["optimizer.layer_decay"] = 0.5
    options.load_state_dict(before | {"optimizer.of_another_version": 1})
    changes = options.changes({})
    assert "SOLVER.LAYER_DECAY none -> 0.5" in changes
    assert "SOLVER.CLIP_GRADIENTS.ENABLED False -> True" in changes
    assert not [one for one in changes if "EMBED" in one or "VERSION" in one]


def test_a_setting_that_is_no_option_is_taken_and_told(interrupted, tmp_path, caplog):
    caplog.set_level("INFO")
    shutil.copytree(interrupted["lazy"], tmp_path / "run")
    trainer = build("lazy", tmp_path / "run", keys(optimizer__betas=[0.9, 0.95]))
    trainer.resume_or_load(True)
    assert {tuple(group["betas"]) for group in trainer.step.optimizer.param_groups} == {(0.9, 0.95)}
    assert "betas (0.9, 0.999) -> (0.9, 0.95)" in caplog.text


def _to_cosine(cfg) -> None:
    cfg.lr_multiplier.scheduler = {
        "_target_": CosineParamScheduler,
        "start_value": 1.0,
        "end_value": 0.0,
    }


@pytest.mark.parametrize(
    "system, change, expected",
    [
        (
            "yacs",
            keys(SOLVER__LR_SCHEDULER_NAME="WarmupCosineLR"),
            "set SOLVER.LR_SCHEDULER_NAME WarmupMultiStepLR, or start .*MODEL.WEIGHTS",
        ),
        ("yacs", keys(SOLVER__OPTIMIZER="SGD"), "set SOLVER.OPTIMIZER ADAMW, or start"),
        ("lazy", _to_cosine, "set lr_multiplier.scheduler to a WarmupMultiStepLR.*init_checkpoint"),
    ],
)
def test_another_type_is_refused_with_the_remedy(interrupted, tmp_path, system, change, expected):
    shutil.copytree(interrupted[system], tmp_path / "run")
    before = {
        path: path.read_bytes() for path in (tmp_path / "run").glob("*[!0-9]") if path.is_file()
    }
    with pytest.raises(ConfigError, match=expected):
        build(system, tmp_path / "run", change).resume_or_load(True)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    "change", ["rate", pytest.param("decay", marks=pytest.mark.slow), "factors"]
)
def test_a_checkpoint_without_a_record_takes_changes_too(interrupted, tmp_path, change):
    shutil.copytree(interrupted["yacs"], tmp_path / "run")
    path = tmp_path / "run" / "model_0000001.pth"
    content = torch.load(path, weights_only=True)
    del content["options"], content["trainer"]["_trainer"]["groups"]
    torch.save(content, path)
    _, change, _ = CHANGES[change]
    recorder = train(build("yacs", tmp_path / "run", change), resume=True)
    expected = expected_rates("yacs", tmp_path, change)
    for iteration, rates in expected.items():
        for name, pair in rates.items():
            assert recorder.rates[iteration][name] == pytest.approx(pair, rel=1e-12), name


def resume_sharded(folder: Path, sharding: str) -> tuple[dict[int, Rates], dict]:
    change = keys(SOLVER__SHARDING=sharding, SOLVER__EMA__ENABLED=False)
    train(build("yacs", folder / sharding, change), resume=False)
    if torch.distributed.get_rank() == 0:
        (folder / sharding / "model_final.pth").unlink()
        (folder / sharding / "last_checkpoint").write_text("model_0000001.pth")
    torch.distributed.barrier()
    other = {"SOLVER__BASE_LR": 0.0005, "SOLVER__WEIGHT_DECAY_NORM": 0.05}
    more = keys(SOLVER__SHARDING=sharding, SOLVER__EMA__ENABLED=False, **other)
    recorder = train(build("yacs", folder / sharding, more), resume=True)
    return recorder.rates, dict(recorder.training.step.changes)


@pytest.mark.parametrize("sharding", ["optimizer", "all"])
@pytest.mark.slow
def test_changes_are_taken_however_the_training_is_sharded(tmp_path, sharding):
    (rates, changes), *_ = together(2, resume_sharded, tmp_path, sharding, folder=tmp_path)
    change = keys(SOLVER__BASE_LR=0.0005, SOLVER__WEIGHT_DECAY_NORM=0.05)
    expected = expected_rates("yacs", tmp_path, change)
    for iteration, pairs in expected.items():
        for name, pair in pairs.items():
            assert rates[iteration][name] == pytest.approx(pair, rel=1e-12), name
    assert set(changes) == {"lr", "weight_decay"}


# ---- Groups alone


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({name: nn.Linear(2, 2, bias=False) for name in "abc"})


def test_values_that_training_changes_are_restored():
    """An optimizer may keep its state in its groups, as those that adapt their own rate do."""
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    optimizer.param_groups[0]["d"] = 1.0
    then = recorded_groups(model, optimizer)
    optimizer.param_groups[0].update(d=7.0, lr=0.25, initial_lr=1.0)
    assert take_changes(optimizer, then, [{**then[0], "momentum": 0.5}]) == {
        "momentum": ([0.9], [0.5])
    }
    group = optimizer.param_groups[0]
    assert (group["d"], group["lr"], group["momentum"]) == (7.0, 0.25, 0.5)
    take_changes(optimizer, then, [{**then[0], "lr": 2.0}])
    assert (group["lr"], group["initial_lr"]) == (0.5, 2.0)


def test_other_parameters_are_refused():
    then = [{"names": ["a", "b"], "lr": 1.0}]
    state = {"state": {}, "param_groups": [{"params": [0, 1], "lr": 1.0}]}
    assert regrouped(state, then, then) is state
    with pytest.raises(ValueError, match="1 differ, such as b.*same model and frozen parts"):
        regrouped(state, then, [{"names": ["a"], "lr": 1.0}])
