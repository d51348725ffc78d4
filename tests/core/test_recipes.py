"""Recipes are found by name, and a wrong name is answered with similar ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import ROOT

from swinv2_backbone.recipes import config_path, find_recipe, recipe_names


def test_every_config_is_a_recipe_and_common_parts_are_not():
    files = [*(ROOT / "configs").glob("*.*"), *(ROOT / "configs" / "projects").glob("*.*")]
    names = {file.relative_to(ROOT / "configs").with_suffix("").as_posix() for file in files}
    assert set(recipe_names()) == {name for name in names if "__" not in name}
    assert not any("common" in name for name in recipe_names())


@pytest.mark.parametrize(
    "name, file",
    [
        ("mask_rcnn_swinv2", "mask_rcnn_swinv2.yaml"),  # YAML before LazyConfig
        ("mask_rcnn_swinv2.py", "mask_rcnn_swinv2.py"),
        ("projects/dino_demo", "projects/dino_demo.py"),
    ],
)
def test_a_name_is_the_path_of_its_recipe(name, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_path(name) == ROOT / "configs" / file


def test_a_file_comes_before_a_recipe_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mask_rcnn_swinv2.yaml").write_text("VERSION: 2")
    assert config_path("mask_rcnn_swinv2.yaml").resolve() == tmp_path / "mask_rcnn_swinv2.yaml"


def test_a_wrong_name_is_answered_with_similar_ones():
    with pytest.raises(FileNotFoundError, match="'mask_rcn_swinv2'; similar.*mask_rcnn_swinv2"):
        config_path("mask_rcn_swinv2")


@pytest.mark.parametrize("name", ["../setup.py", "/etc/passwd", "common/coco/x"])
def test_a_path_is_not_a_recipe(name):
    assert find_recipe(Path(name)) is None
