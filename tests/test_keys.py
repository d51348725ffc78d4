"""The keys that are known without Detectron2 are those of the config."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest
from detectron2.config import get_cfg

from swinv2_backbone import keys
from swinv2_backbone.d2.config.rules import ConfigError
from swinv2_backbone.d2.config.yacs import add_swinv2_config, load_config

RECIPE = "configs/mask_rcnn_swinv2.yaml"


def names(config: Mapping, path: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield f"{path}{key}"
        if isinstance(value, Mapping):
            yield from names(value, f"{path}{key}.")


def test_the_keys_are_those_of_the_config():
    config = get_cfg()
    add_swinv2_config(config)
    assert not keys.wrong_keys(names(config))
    mine, others = set(keys.own_keys()), set(names(get_cfg()))
    every = set(names(config))
    leaves = {name for name in every if not any(one.startswith(f"{name}.") for one in every)}
    assert mine == leaves - others


@pytest.mark.parametrize(
    "key", ["SOLVER.BASE_LRR", "solver.base_lr", "MODEL.SWIN.KERNEL", "OUTPUT", "SEED.X", "XYZ"]
)
def test_a_wrong_key_has_the_message_of_the_config(key):
    with pytest.raises(ConfigError) as error:
        load_config(RECIPE, ["MODEL.DEVICE", "cpu", key, "1"])
    assert keys.wrong_keys([key]) == error.value.faults


def test_no_key_is_wrong_without_detectron2(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert keys.wrong_keys(["SOLVER.BASE_LRR"]) == []


@pytest.mark.parametrize(
    "words",
    [
        ["train", "mask_rcnn_swinv2"],
        ["eval", "mask_rcnn_swinv2"],
        ["predict", "mask_rcnn_swinv2", "docs/demo.jpg", "--output", "none"],
        ["analyze", "results", "mask_rcnn_swinv2", "--output", "none"],
        [
            "export",
            "mask_rcnn_swinv2",
            "--what",
            "backbone",
            "--format",
            "onnx",
            "--output",
            "none",
        ],
        ["demo"],
    ],
    ids=lambda words: words[0],
)
def test_commands_name_a_wrong_key_before_torch_is_imported(words):
    program = "import sys; from swinv2_backbone.cli.main import main; sys.modules['torch'] = None; "
    call = f"main({[*words, 'SOLVER.BASE_LRR', '1']})"
    ended = subprocess.run([sys.executable, "-c", program + call], capture_output=True, text=True)
    assert ended.stderr == "ValueError: SOLVER.BASE_LRR: did you mean BASE_LR?\n"
