"""The counted memory of a training, compared with formulas and measurements."""

from __future__ import annotations

import resource

import pytest
import torch
from scripts import tool

from swinv2_backbone import VARIANTS, Variant, build_backbone, training_memory
from swinv2_backbone.d2.config import sections
from swinv2_backbone.training_memory import Setting, TrainingMemory

TINY = "swinv2_tiny_window8_256"
MODEL = build_backbone(TINY)
PARAMETERS = sum(p.numel() for p in MODEL.parameters())


def test_weights_gradients_and_moments_are_four_floats_a_parameter():
    memory = training_memory.training_memory(Setting(TINY, (64, 64)))
    assert memory.weights == memory.gradients == 4 * PARAMETERS
    assert memory.optimizer == 8 * PARAMETERS
    assert memory.exchange == 0
    assert memory.total == sum(vars(memory).values())


def test_tiles_save_eleven_channels_a_token_and_little_else():
    """The input and that tiled_block.Activations names: 1 + 3 + 1 + 1 + 4 + 1."""
    setting = Setting(TINY, (64, 64), dtype=None, kernel="tiles")
    one, two = (
        training_memory.kept_bytes(MODEL.train(), torch.zeros(batch, 3, 64, 64), setting)
        for batch in (1, 2)
    )
    tokens = [16 * 16 // 4**stage for stage in range(4)]
    blocks = sum(4 * 11 * tokens[i] * 96 * 2**i * depth for i, depth in enumerate((2, 2, 6, 2)))
    assert blocks < two - one < 1.3 * blocks  # patch embedding, mergings, output norms


@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_tensors_without_memory_save_as_many_bytes_as_real_ones(checkpointing, monkeypatch):
    """The GPU's kernel, in Triton's interpreter."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    small = Variant(32, (1, 2, 1, 1), (1, 2, 4, 8), (4,) * 4, (4,) * 4, 64)
    monkeypatch.setitem(VARIANTS, "small", small)
    setting = Setting("small", (32, 32), checkpointing=checkpointing, dtype=None)
    _, _, counted = training_memory.count(setting)
    real = build_backbone("small", kernel="triton", activation_checkpointing=checkpointing).train()
    images = torch.zeros(1, 3, 32, 32)
    kept = training_memory.kept_bytes(real, images, setting)
    if checkpointing:
        kept += max(training_memory.block_bytes(real, images, setting))
    assert counted == kept


def test_checkpointing_saves_far_fewer_activations():
    setting = Setting(TINY, (512, 512))
    plain = training_memory.count(setting)[2]
    assert training_memory.count(Setting(TINY, (512, 512), checkpointing=True))[2] < 0.5 * plain


def test_activations_grow_with_batch_and_pixels():
    one, two, four, sixteen = (
        training_memory.count(Setting(TINY, (side, side), batch=batch))[2]
        for side, batch in ((128, 1), (128, 2), (256, 1), (256, 4))
    )
    assert four - one == pytest.approx(3 * (two - one), rel=0.01)
    assert sixteen - one == pytest.approx(15 * (two - one), rel=0.01)


def test_sharding_divides_the_documented_parts():
    setting = Setting(TINY, (64, 64))
    found: dict[str, TrainingMemory] = {
        s: training_memory.training_memory(setting, s, 4) for s in training_memory.SHARDING
    }
    whole = 4 * PARAMETERS
    assert found["none"].optimizer == 2 * whole and found["none"].exchange == whole
    assert found["optimizer"].optimizer == whole / 2
    assert found["optimizer"].weights == whole
    assert found["all"].weights == found["all"].gradients == whole / 4
    assert found["all"].exchange < whole


def test_kinds_of_sharding_are_those_of_a_training():
    assert training_memory.SHARDING == sections.SHARDING


@pytest.mark.parametrize(("sharding", "processes"), [("zero", 2), ("all", 1)])
def test_impossible_sharding_is_refused(sharding, processes):
    with pytest.raises(ValueError, match="sharding"):
        training_memory.training_memory(Setting(TINY, (64, 64)), sharding, processes)


def test_the_giant_is_counted_without_its_memory(capsys):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = ["--memory", "--model", "swinv2_giant", "--image-size", "1024", "--processes", "64"]
    tool("analyze_model").main([*line, "--checkpointing"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB; not 11 GiB
    printed = capsys.readouterr().out
    rows = [row.split(" | ") for row in printed.splitlines() if row.startswith("| ")]
    assert [row[0].strip("| ") for row in rows] == ["sharding", "none", "optimizer", "all"]
    assert float(rows[1][1]) == pytest.approx(4 * 3.0e9 / 2**30, rel=0.01)
