"""The config that a training writes into its output folder."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from detectron2.engine import default_setup
from detectron2.utils.file_io import PathManager
from small_configs import lazy_config, yaml_config

from swinv2_backbone.checkpoints import durable
from swinv2_backbone.d2 import ConfigError, load_config
from swinv2_backbone.d2.config.lazy import load_lazy_config
from swinv2_backbone.d2.engine.setup import set_up
from swinv2_backbone.recipes import is_lazy

STEM = "mask_rcnn_swinv2"
ARGUMENTS = argparse.Namespace(config_file="", eval_only=False)


def config(dialect: str, folder: Path):
    if dialect == "yaml":
        cfg = yaml_config(STEM, small=True)
        cfg.OUTPUT_DIR = str(folder)
    else:
        cfg = lazy_config(STEM, small=True)
        cfg.train.output_dir = str(folder)
    return cfg


@pytest.mark.parametrize("dialect", ["yaml", "lazy"])
def test_the_config_is_that_of_detectron2(dialect, tmp_path):
    written = []
    for call in (default_setup, set_up):
        folder = tmp_path / "output"
        call(config(dialect, folder), ARGUMENTS)
        written.append((folder / "config.yaml").read_text(encoding="utf-8"))
    assert written[0] == written[1]
    assert is_lazy(folder / "config.yaml") == (dialect == "lazy")
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "log.txt"]
    read = load_config if dialect == "yaml" else load_lazy_config
    read(str(folder / "config.yaml"))


@pytest.mark.parametrize("dialect", ["yaml", "lazy"])
def test_a_write_that_does_not_end_leaves_the_earlier_config(dialect, tmp_path, monkeypatch):
    set_up(config(dialect, tmp_path), ARGUMENTS)
    earlier = (tmp_path / "config.yaml").read_bytes()

    def stopped(partial: Path, path: Path) -> None:
        assert path == tmp_path / "config.yaml" and partial.stat().st_size > 1000
        raise KeyboardInterrupt

    monkeypatch.setattr(durable, "_put_in_place", stopped)
    with pytest.raises(KeyboardInterrupt):
        set_up(config(dialect, tmp_path), ARGUMENTS)
    assert (tmp_path / "config.yaml").read_bytes() == earlier
    assert "open" not in vars(PathManager)


@pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 4096])
def test_an_empty_config_is_named_with_a_remedy(content, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    words = f"{file} is empty; a process that was killed .*: give the config that the training"
    with pytest.raises(ConfigError, match=words):
        load_config(str(file))


@pytest.mark.parametrize("content", ["just words\n", "- a\n- b\n", "7\n"])
def test_a_config_without_keys_is_named(content, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="config.yaml has no keys and values"):
        load_config(str(file))
