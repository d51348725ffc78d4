"""Recipes by name in Python, and as the base of a config outside of the repository."""

from __future__ import annotations

import pytest
from detectron2.config import CfgNode

from swinv2_backbone.d2 import get_config, load_config
from swinv2_backbone.d2.config.lazy import load_lazy_config
from swinv2_backbone.recipes import config_path

CPU = ["MODEL.DEVICE", "cpu"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_both_dialects_of_a_recipe_are_found_by_name():
    assert isinstance(get_config("mask_rcnn_swinv2_small", CPU), CfgNode)
    lazy = get_config("mask_rcnn_swinv2_small.py", ["train.max_iter=7"])
    assert lazy.train.max_iter == 7
    assert lazy.model.backbone.bottom_up.variant == "swinv2_small_window8_256"


@pytest.mark.parametrize("quoted", ["{}", "'{}'", '"{}"'])
def test_weights_may_have_a_digest_in_both_dialects(quoted):
    source = f"it's.pth#sha256={64 * '0'}" if quoted == "{}" else f"x.pth#sha256={64 * '0'}"
    lazy = [
        f"train.init_checkpoint={quoted.format(source)}",
        "train.max_iter=7",
        "train.device=cpu",
    ]
    for config in (
        get_config("mask_rcnn_swinv2.py", lazy),
        load_lazy_config(str(config_path("mask_rcnn_swinv2.py")), lazy),
    ):
        assert config.train.init_checkpoint == source and config.train.max_iter == 7
    yaml = get_config("mask_rcnn_swinv2", [*CPU, "MODEL.WEIGHTS", source])
    assert source == yaml.MODEL.WEIGHTS


def test_a_lazy_config_can_be_made_of_a_recipe(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from swinv2_backbone.d2 import get_config\n"
        "recipe = get_config('mask_rcnn_swinv2.py')\n"
        "model, train = recipe.model, recipe.train\n"
        "model.roi_heads.num_classes = 3\n"
    )
    assert get_config("mine.py").model.roi_heads.num_classes == 3


def test_the_base_of_a_yaml_file_may_be_a_recipe(tmp_path):
    (tmp_path / "mine.yaml").write_text("_BASE_: mask_rcnn_swinv2_small.yaml\nSEED: 7\n")
    config = load_config("mine.yaml", CPU)
    assert config.SEED == 7
    assert config.MODEL.SWINV2.VARIANT == "swinv2_small_window8_256"


def test_a_file_beside_the_config_comes_before_a_recipe(tmp_path):
    (tmp_path / "mask_rcnn_swinv2.yaml").write_text("VERSION: 2\nSEED: 3\n")
    (tmp_path / "mine.yaml").write_text("_BASE_: mask_rcnn_swinv2.yaml\n")
    assert load_config("mine.yaml", CPU).SEED == 3


def test_a_base_that_does_not_exist_is_named_with_similar_recipes(tmp_path):
    (tmp_path / "mine.yaml").write_text("_BASE_: mask_rcn_swinv2.yaml\n")
    with pytest.raises(FileNotFoundError, match="'mask_rcn_swinv2.yaml'; similar.*mask_rcnn"):
        load_config("mine.yaml", CPU)
