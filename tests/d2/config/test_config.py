"""Config keys: what is refused, and in which words."""

import pytest
import torch
import yaml

from swinv2_backbone.d2.config.yacs import load_config

CPU = ["MODEL.DEVICE", "cpu"]


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["SOLVER.OPTIMIZER", "ADAM"], ["SOLVER.OPTIMIZER", "ADAM", "ADAMW, SGD"]),
        (["SOLVER.AMP.DTYPE", "half"], ["SOLVER.AMP.DTYPE", "half", "bfloat16, float16"]),
        (
            ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "float16"],
            ["float16", "GPU", "bfloat16"],
        ),
        (["SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "all"], ["CLIP_TYPE", "all", "full_model"]),
        (["SOLVER.LAYER_DECAY", "0.0"], ["SOLVER.LAYER_DECAY", "0.0"]),
        (["MODEL.SWINV2.WINDOWS", "8"], ["MODEL.SWINV2.WINDOWS"]),
        (["SOLVER.MAX_ITER"], ["KEY VALUE", "SOLVER.MAX_ITER"]),
        (["SOLVER.MAX_ITER", "many"], ["SOLVER.MAX_ITER"]),
    ],
)
def test_wrong_values_are_refused_by_name(opts, words):
    with pytest.raises(ValueError) as error:
        load_config("", CPU + opts)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_missing_gpu_is_said_with_the_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="MODEL.DEVICE cpu"):
        load_config("")


def test_a_saved_config_loads_again(tmp_path):
    cfg = load_config(
        "",
        [
            *CPU,
            "MODEL.SWINV2.WINDOW_SIZE",
            "((4, 6), (4, 6), (4, 6), (2, 3))",
            "MODEL.SWINV2.VARIANT",
            "swinv2_tiny_window8_256",
        ],
    )
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = load_config(str(tmp_path / "config.yaml"))
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())
