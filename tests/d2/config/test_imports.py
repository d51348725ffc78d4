"""Other projects' code and keys: imported on request, adopted, refused, or named."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog
from small_configs import CONFIGS

from swinv2_backbone.d2.config.lazy import load_lazy_config
from swinv2_backbone.d2.config.rules import ConfigError
from swinv2_backbone.d2.config.yacs import load_config, plan_from_yacs
from swinv2_backbone.d2.engine.advice import advice
from swinv2_backbone.d2.engine.prepare import _evaluation_faults, prepare
from swinv2_backbone.d2.engine.trainer import load_plan
from swinv2_backbone.d2.modeling.build import build_model

PROJECT = "small_project:add_slots_config"
CPU = ["MODEL.DEVICE", "cpu"]
SLOTS = [*CPU, "MODEL.META_ARCHITECTURE", "SlotDetector"]
SLOTS += ["MODEL.BACKBONE.NAME", "build_swinv2_backbone"]


def slots_config(*opts: str):
    return load_config("", [*SLOTS, *opts], [PROJECT])


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A module in the working directory that leaves a file behind when it runs."""
    code = (
        "from pathlib import Path\n"
        "Path('imported').touch()\n"
        "def add(cfg):\n"
        "    cfg.SOLVER.OPTIMIZER = 'SGD'\n"
        "    cfg.SOLVER.MINE = Path('called').write_text('once')\n"
        "def broken(cfg):\n"
        "    import an_absent_dependency\n"
    )
    (tmp_path / "mine_of_this_test.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("mine_of_this_test", None)


def test_a_module_of_the_working_directory_adds_keys_and_changes_defaults(project):
    (project / "a.yaml").write_text("SOLVER: {MINE: 7}\n")
    cfg = load_config("a.yaml", CPU, ["mine_of_this_test:add"])
    assert cfg.SOLVER.MINE == 7 and cfg.SOLVER.OPTIMIZER == "SGD"
    assert (project / "called").read_text() == "once"
    assert sys.path[-1] == str(project)  # last: it hides no installed package


def test_a_config_file_never_runs_the_imports_that_it_records(project):
    (project / "a.yaml").write_text("IMPORTS: ['mine_of_this_test:add']\nSOLVER: {MINE: 7}\n")
    with pytest.raises(ConfigError, match="was written with --import mine_of_this_test:add"):
        load_config("a.yaml", CPU)
    with pytest.raises(ConfigError, match="IMPORTS records --import"):
        load_config("", [*CPU, "IMPORTS", "('mine_of_this_test:add',)"])
    assert not (project / "imported").exists()


def test_a_written_config_is_read_with_its_imports_alone(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(slots_config("MODEL.SLOTS.COUNT", "9").dump())
    with pytest.raises(ConfigError, match=re.escape(f"--import {PROJECT}: add it")) as error:
        load_config(str(file))
    assert len(error.value.faults) == 1
    again = load_config(str(file), (), [PROJECT, PROJECT])
    assert again.MODEL.SLOTS.COUNT == 9 and list(again.IMPORTS) == [PROJECT]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("small_projct:add", "No module named 'small_projct'; it must be installed, in PYTHONPATH"),
        ("small_project:add_slot_config", "no function add_slot_config; did you mean add_slots_"),
        ("small_project:takes_two", "missing a required argument: 'other'"),
        ("small_project:copies_the_config", "must change the given config, not a copy"),
        ("small_project:SLOT_HEADS", "has no function SLOT_HEADS"),
        ("projects/small_project.py:add", "must be package.module:function, got 'projects/small"),
        (".small_project:add", "must be package.module:function"),
        ("", "must be package.module:function, got ''"),
    ],
)
def test_an_impossible_import_is_refused_with_the_reason(name, words):
    with pytest.raises(ConfigError) as error:
        load_config("", CPU, [name])
    assert words in str(error.value) and "--import" in str(error.value)


def test_an_unknown_key_names_the_flag_that_adds_keys(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("MODEL: {SLOTS: {COUNT: 3}}\n")
    with pytest.raises(ConfigError, match="MODEL.SLOTS: no such key.*--import package.module:fun"):
        load_config(str(file), CPU)


def test_an_unregistered_part_is_refused_by_name():
    with pytest.raises(ConfigError) as error:
        prepare(load_plan("", [*CPU, "MODEL.META_ARCHITECTURE", "MaskFormer"]))
    assert "MODEL.META_ARCHITECTURE 'MaskFormer' is not registered" in str(error.value)
    assert "--import package.module:function" in str(error.value)
    with pytest.raises(ConfigError, match="did you mean build_swinv2_backbone"):
        prepare(load_plan("", [*CPU, "MODEL.BACKBONE.NAME", "build_swinv2_backbon"]))
    cfg = slots_config(
        "MODEL.SLOTS.HEAD", "Absent", "MODEL.SWINV2.VARIANT", "swinv2_tiny_window8_256"
    )
    with pytest.raises(ValueError, match="'Absent' found in 'SLOT_HEADS' registry.*--import"):
        build_model(cfg)


def test_a_lazy_config_imports_modules_but_takes_no_function(project):
    file = str(CONFIGS / "mask_rcnn_swinv2.py")
    with pytest.raises(ConfigError, match="has no keys.*give --import mine_of_this_test"):
        load_lazy_config(file, ["train.device=cpu"], ["mine_of_this_test:add"])
    assert not (project / "imported").exists()
    load_lazy_config(file, ["train.device=cpu"], ["mine_of_this_test"])
    assert (project / "imported").exists()


def test_keys_with_our_meaning_are_adopted():
    plan = plan_from_yacs(slots_config())
    assert (plan.optimizer.backbone_lr_factor, plan.schedule.poly_power) == (0.5, 0.9)
    ours = slots_config("SOLVER.BACKBONE_MULTIPLIER", "1.0", "SOLVER.BACKBONE_LR_FACTOR", "0.2")
    assert plan_from_yacs(ours).optimizer.backbone_lr_factor == 0.2


def test_keys_that_contradict_ours_are_refused():
    with pytest.raises(
        ConfigError, match=r"BACKBONE_MULTIPLIER 0\.5 and SOLVER.BACKBONE_LR_FACTOR"
    ):
        slots_config("SOLVER.BACKBONE_LR_FACTOR", "0.2")


def test_an_unsupported_end_of_a_polynomial_schedule_is_refused(project):
    code = "def add(cfg):\n    cfg.SOLVER.POLY_LR_CONSTANT_ENDING = 0.1\n"
    (project / "mine_of_this_test.py").write_text(code)
    load_config("", CPU, ["mine_of_this_test:add"])
    with pytest.raises(ConfigError, match=r"POLY_LR_CONSTANT_ENDING 0\.1 is not supported"):
        poly = ["SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR"]
        load_config("", [*CPU, *poly], ["mine_of_this_test:add"])


def test_keys_that_this_trainer_ignores_are_named():
    (text,) = advice(plan_from_yacs(slots_config()), {})
    assert "does not read these keys" in text and "INPUT.SLOTS_MAPPER_NAME 'slots_lsj'" in text
    assert "MODEL." not in text and "SOLVER." not in text
    assert not advice(plan_from_yacs(load_config("", CPU)), {})


def test_a_metric_of_masks_is_not_refused_for_a_model_of_another_project():
    opts = ["TEST.BEST_METRIC", "segm/AP", "DATASETS.TEST", "('slots_metric',)"]
    MetadataCatalog.get("slots_metric").set(evaluator_type="coco", json_file="a.json")
    try:
        plan = load_plan("", [*SLOTS, *opts], [PROJECT])
        assert not list(_evaluation_faults(plan, plan.data.test, False))
        assert list(_evaluation_faults(load_plan("", [*CPU, *opts]), plan.data.test, False))
    finally:
        MetadataCatalog.remove("slots_metric")
