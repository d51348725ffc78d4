"""Experiment trackers get what a training logs, and never stop it."""

from __future__ import annotations

import importlib
import json
import sys
from types import ModuleType

import numpy as np
import pytest
import small_training
import torch
from detectron2.utils.events import EventStorage

from swinv2_backbone.d2.config.yacs import plan_from_yacs
from swinv2_backbone.d2.engine.prepare import _missing_trackers
from swinv2_backbone.d2.engine.signals import TrainingEnded
from swinv2_backbone.d2.engine.tracking import tracker as tracker_module
from swinv2_backbone.d2.engine.tracking import writer as writer_module

WANDB = "swinv2_backbone.d2.engine.tracking.wandb_run"


@pytest.fixture(autouse=True)
def dataset(tmp_path):
    small_training.register(tmp_path / "images")
    yield
    small_training.forget()


def config(folder, iterations: int = 2, trackers=("wandb",), **more):
    more = {"SOLVER__LOG_PERIOD": 1, "TRACKING__TRACKERS": trackers} | more
    return small_training.config(folder, iterations, 1, **more)


class StandIn:
    """A run that keeps what it gets; the calls that are named in ``broken`` fail."""

    def __init__(self, runs: list, broken: tuple = ()):
        self.runs, self.broken = runs, broken
        self.values, self.images, self.state = {}, [], None

    def start(self, run, offline):
        self.run, self.offline = run, offline
        self._fail("start")
        self.runs.append(self)
        return run.id or f"id{len(self.runs)}"

    def log(self, iteration, values):
        self._fail("log")
        self.values.setdefault(iteration, {}).update(values)

    def image(self, iteration, name, image):
        pixels = tracker_module.pixels_of(image)
        self.images.append((iteration, name, pixels.shape, pixels.dtype))

    def end(self, state):
        self._fail("end")
        self.state = state

    def _fail(self, call):
        if call in self.broken and not self.offline:
            raise ConnectionError("no network")


@pytest.fixture
def stand_in(monkeypatch):
    """Return a function that replaces the trackers, and returns the list of their runs."""

    def replace(*broken):
        runs = []
        monkeypatch.setattr(writer_module, "new_tracker", lambda name: StandIn(runs, broken))
        return runs

    return replace


def test_a_training_logs_losses_rates_and_options_and_ends_finished(tmp_path, stand_in):
    runs = stand_in()
    losses = small_training.train(config(tmp_path / "run", TRACKING__PROJECT="shapes"))
    (run,) = runs
    assert {step: values["total_loss"] for step, values in run.values.items()} == losses
    assert all({"lr", "grad_norm", "loss_mask"} <= values.keys() for values in run.values.values())
    assert (run.run.project, run.run.id, run.state) == ("shapes", None, "finished")
    assert run.run.options["SOLVER.MAX_ITER"] == 2 and all(run.run.options)


def test_a_resumed_training_continues_its_run_and_a_new_one_does_not(tmp_path, stand_in):
    runs = stand_in()
    small_training.train(config(tmp_path / "run", 4), stop_before=2)
    small_training.train(config(tmp_path / "run", 4), resume=True)
    small_training.train(config(tmp_path / "run", 1))
    assert [run.run.id for run in runs] == [None, "id1", None]
    assert [sorted(run.values) for run in runs] == [[0, 1], [2, 3], [0]]
    assert [run.state for run in runs] == ["failed", "finished", "finished"]


@pytest.mark.parametrize("call", [pytest.param("start", marks=pytest.mark.slow), "log"])
def test_without_a_network_the_training_goes_on_with_an_offline_run(
    tmp_path, stand_in, caplog, call
):
    runs = stand_in(call)
    losses = small_training.train(config(tmp_path / "run"))
    assert {step: values["total_loss"] for step, values in runs[-1].values.items()} == losses
    assert runs[-1].offline and runs[-1].state == "finished"
    assert caplog.text.count("ConnectionError: no network") == 1
    assert json.loads((tmp_path / "run" / "trackers.json").read_text())["wandb"]["offline"]


def test_a_call_that_fails_offline_too_stops_nothing(tmp_path, stand_in, monkeypatch, caplog):
    stand_in()
    monkeypatch.setattr(StandIn, "log", lambda *args: 1 / 0)
    tracking = writer_module.Tracking(plan_from_yacs(config(tmp_path)), bool, bool)
    with EventStorage(6) as storage:
        tracking.before_train()
        storage.put_scalar("total_loss", 1.0)
        tracking.write()
        tracking.close()
    assert caplog.text.count("ZeroDivisionError") == 2 and not tracking.running


def test_a_tracker_that_fails_offline_too_is_left_out(tmp_path, stand_in, monkeypatch, caplog):
    monkeypatch.setattr(writer_module, "new_tracker", lambda name: 1 / 0)
    tracking = writer_module.Tracking(plan_from_yacs(config(tmp_path)), bool, bool)
    with EventStorage(6) as storage:
        tracking.before_train()
        storage.put_scalar("total_loss", 1.0)
        tracking.write()
        tracking.close()
    assert "so the run is not logged there: ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("error", "ended", "state"),
    [
        (None, False, "finished"),
        (TrainingEnded("early stopping"), True, "finished"),
        (TrainingEnded("time limit"), False, "preempted"),
        (SystemExit(143), False, "preempted"),
        (RuntimeError("out of memory"), False, "failed"),
    ],
)
def test_the_state_tells_how_the_training_ended(tmp_path, stand_in, error, ended, state):
    (runs, plan) = (stand_in(), plan_from_yacs(config(tmp_path)))
    tracking = writer_module.Tracking(plan, lambda: False, lambda: ended)
    tracking.before_train()
    try:
        if error:
            raise error
    except BaseException:
        tracking.close()
    else:
        tracking.close()
    assert runs[0].state == state


def test_images_and_results_of_the_storage_are_logged_once(tmp_path, stand_in):
    (runs, plan) = (stand_in(), plan_from_yacs(config(tmp_path)))
    tracking = writer_module.Tracking(plan, lambda: False, lambda: False)
    tracking.before_train()
    with EventStorage(6) as storage:
        storage.put_image("boxes", torch.rand(3, 4, 5, requires_grad=True))
        storage.put_scalar("bbox/AP", 41.5, smoothing_hint=False)
        tracking.write()
        storage.iter = 7
        tracking.write()
    assert runs[0].values == {6: {"bbox/AP": 41.5}}
    assert runs[0].images == [(6, "boxes", (4, 5, 3), np.uint8)]


def test_a_missing_package_is_an_error_that_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(_missing_trackers.__globals__, "find_spec", lambda name: None)
    plan = plan_from_yacs(config(tmp_path, trackers=("mlflow",)))
    (fault,) = _missing_trackers(plan)
    assert fault == (
        "TRACKING.TRACKERS has 'mlflow', but its package is not installed: "
        "pip install 'swinv2_backbone[mlflow]'"
    )


class Library(ModuleType):
    """The few calls of wandb."""

    def __init__(self, key):
        super().__init__("wandb")
        self.calls: list[tuple] = []
        self.login = lambda prompt: bool(key) and not prompt
        self.Settings, self.Image = dict, lambda pixels: pixels.shape

    def init(self, **arguments):
        self.calls.append(("init", arguments["mode"], arguments["resume"]))
        self.id = arguments["id"]
        return self

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **named: self.calls.append((name, *args, *named.values()))


@pytest.mark.parametrize(("key", "modes"), [("secret", [None]), (None, ["offline"])])
def test_wandb_is_told_the_iteration_and_runs_offline_without_a_key(
    tmp_path, monkeypatch, key, modes
):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", library := Library(key))
    monkeypatch.delitem(sys.modules, WANDB, raising=False)
    small_training.train(config(tmp_path / "run"))
    del sys.modules[WANDB]  # it has the stand-in
    assert [call[1:] for call in library.calls if call[0] == "init"] == [
        (mode, "allow") for mode in modes
    ]
    logged = [call[1] for call in library.calls if call[0] == "log"]
    assert [values["iteration"] for values in logged if "total_loss" in values] == [0, 1]
    assert library.calls[-1] == ("finish", 0)


@pytest.mark.filterwarnings("ignore")  # of the library itself
def test_wandb_writes_an_offline_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    small_training.train(config(tmp_path / "run"))
    id = json.loads((tmp_path / "run" / "trackers.json").read_text())["wandb"]["id"]
    (file,) = (tmp_path / "run" / "wandb").glob(f"offline-run-*/run-{id}.wandb")
    assert b"total_loss" in file.read_bytes()


@pytest.mark.filterwarnings("ignore")  # of the library itself
def test_mlflow_keeps_metrics_and_state_over_a_resume(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.chdir(tmp_path)
    trackers = ("mlflow",)
    first = small_training.train(config(tmp_path / "run", 4, trackers), stop_before=2)
    second = small_training.train(
        config(tmp_path / "run", 4, trackers, SOLVER__BASE_LR=0.002), resume=True
    )
    client = mlflow.MlflowClient(database)
    (run,) = client.search_runs([client.get_experiment_by_name("swinv2").experiment_id])
    history = client.get_metric_history(run.info.run_id, "total_loss")
    assert {each.step: each.value for each in history} == pytest.approx({**first, **second})
    assert run.info.status == "FINISHED"
    assert run.data.params["SOLVER.BASE_LR"] != "0.002"  # MLflow's parameters never change
    assert len(client.list_artifacts(run.info.run_id, "config")) == 2


@pytest.mark.parametrize("name", tracker_module.TRACKERS)
def test_the_package_of_a_tracker_is_its_name_and_an_extra(name):
    pytest.importorskip(name)
    module, _, cls = tracker_module.TRACKERS[name].rpartition(".")
    assert hasattr(importlib.import_module(module), cls)
