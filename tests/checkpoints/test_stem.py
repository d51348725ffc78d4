"""Weights for another number of channels: refused, or changed by a stated rule and reported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoint_files import refused, small_backbone, write
from models import largest_difference, pictures
from oracle import randomize
from torch import Tensor

from swinv2_backbone import SwinV2, load_checkpoint, save_checkpoint
from swinv2_backbone.checkpoints.stem import STEM_RULES
from swinv2_backbone.cli import arguments, convert_checkpoint

# What the file's channels see of the bands, written out: {(channels, bands, rule): {channel: ...}}
SEEN = {
    (3, 5, "repeat"): lambda x: [(x[0] + x[3]) / 2, (x[1] + x[4]) / 2, x[2]],
    (3, 1, "repeat"): lambda x: [x[0], x[0], x[0]],
    (5, 3, "repeat"): lambda x: [x[0], x[1], x[2], x[0], x[1]],
    (3, 4, "mean"): lambda x: [(x[0] + x[1] + x[2] + x[3]) / 4] * 3,
    (4, 2, "mean"): lambda x: [(x[0] + x[1]) / 2] * 4,
    (3, 5, "zero"): lambda x: [x[0], x[1], x[2]],
    (5, 3, "zero"): lambda x: [x[0], x[1], x[2], 0 * x[0], 0 * x[0]],
}


def model_of(channels: int, seed: int) -> SwinV2:
    return randomize(small_backbone(in_channels=channels), seed).eval()


def file_of(model: SwinV2, folder: Path) -> Path:
    save_checkpoint(model, folder / "weights.safetensors")
    return folder / "weights.safetensors"


@torch.no_grad()
@pytest.mark.parametrize("case", SEEN, ids=str)
def test_features_are_those_of_the_files_model_for_what_its_channels_see(case, tmp_path):
    channels, bands, rule = case
    before, after = model_of(channels, seed=0), model_of(bands, seed=1)
    report = load_checkpoint(after, file_of(before, tmp_path), stem=rule)
    images = pictures(2, bands, 36, 29)
    seen = torch.stack(SEEN[case](images.transpose(0, 1)), dim=1)
    assert largest_difference(after(images), before(seen)) < 1e-5
    words = f"from {channels} to {bands} channels by the rule '{rule}'"
    assert words in report.stem and words in str(report) and report.complete


@pytest.mark.parametrize("bands", [1, 4])
def test_without_a_rule_another_number_of_channels_is_refused_with_the_setting(bands, tmp_path):
    refused(
        model_of(bands, seed=1),
        file_of(model_of(3, seed=0), tmp_path),
        rf"of 3 channels or bands, the model is for {bands} .*stem=\"repeat\", \"mean\" or "
        r"\"zero\" \(MODEL.SWINV2.STEM, train.stem, --stem",
    )


def test_an_unknown_rule_is_refused(tmp_path):
    path = file_of(model_of(3, seed=0), tmp_path)
    for bands in (3, 4):
        refused(
            model_of(bands, 1), path, "one of repeat, mean, zero, or None, got 'copy'", stem="copy"
        )


def test_a_rule_changes_nothing_where_the_channels_agree(tmp_path):
    before, after = model_of(3, seed=0), model_of(3, seed=1)
    report = load_checkpoint(after, file_of(before, tmp_path), stem="mean")
    assert report.stem is None and "stem" not in str(report)
    assert torch.equal(after.patch_embed.proj.weight, before.patch_embed.proj.weight)


def test_a_rule_excuses_no_other_fault(tmp_path):
    state: dict[str, Tensor] = model_of(3, seed=0).state_dict()
    state["patch_embed.proj.weight"] = torch.randn(32, 3, 8, 8)
    path = write(state, tmp_path / "patches_of_8.pth")
    refused(model_of(4, seed=1), path, "1 tensors of another shape", stem="repeat")


def test_the_commands_offer_the_same_rules():
    assert arguments.STEM_RULES == STEM_RULES


def test_the_converter_writes_a_file_for_other_bands(tmp_path):
    before = model_of(3, seed=0)
    path, target = file_of(before, tmp_path), tmp_path / "five.pth"
    words = [str(path), str(target), "--in-channels", "5"]
    with pytest.raises(SystemExit, match="of 3 channels or bands, the model is for 5"):
        convert_checkpoint.main(words)
    convert_checkpoint.main([*words, "--stem", "mean", "--check"])
    after = model_of(5, seed=1)
    assert load_checkpoint(after, target).complete
    images = pictures(1, 5, 36, 29)
    with torch.no_grad():
        seen = images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
        assert largest_difference(after(images), before(seen)) < 1e-5
