"""The pretrained windows are read from every source, and never assumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoint_files import (
    SMALL,
    TINY,
    changed,
    published,
    refused,
    small_backbone,
    small_classifier,
    write,
)
from oracle import randomize
from publishers import PUBLISHERS, native_state
from safetensors.torch import save_file
from torch import Tensor

from swinv2_backbone import (
    VARIANTS,
    SwinV2,
    Variant,
    build_backbone,
    load_checkpoint,
    save_checkpoint,
)
from swinv2_backbone.checkpoints.architecture import architecture_of
from swinv2_backbone.checkpoints.pretrained_sources import settings_beside, suggestion


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return native_state(SMALL, num_classes=10)


def silent_file(name: str, folder: Path, file: str = "weights.pth") -> Path:
    """Write a file of timm's layout, which has no windows, under a neutral name."""
    return write(PUBLISHERS["timm"](native_state(name), name), folder / file)


def own_size(name: str, **options) -> SwinV2:
    """Build a model of a variant's size without its pretrained windows."""
    variant = VARIANTS[name]
    return SwinV2(
        variant.embed_dim, variant.depths, num_heads=variant.num_heads, window_size=8, **options
    )


@pytest.mark.heavy
def test_no_source_at_all_is_an_error_that_names_the_setting(tmp_path):
    path = silent_file(TINY, tmp_path)
    words = "does not specify the windows.*PRETRAINED_WINDOW_SIZES.*VARIANT"
    refused(own_size(TINY), path, words)
    report = load_checkpoint(own_size(TINY, pretrained_window_sizes=8), path)
    assert report.pretrained_windows.source == "the model; the file does not specify them"


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (
            "swinv2_tiny_window16_256.ms_in1k.pth",
            r"\[16, 16, 16, 8\] for swinv2_tiny_w",
        ),
        (
            "swinv2_tiny_patch4_window8_256.pth",
            r"\[8, 8, 8, 8\] for swinv2_tiny_w",
        ),
        ("swinv2-tiny-w16_3rdparty_in1k-256px_0.pth", r"\[16, 16, 16, 8\] for swinv2_tiny_w"),
        (
            "swinv2_base_window8_256.pth",
            r"\[8, 8, 8, 8\] for .* or \[16, 16, 16, 8\] for .*",
        ),
    ],
)
@pytest.mark.heavy
def test_the_name_of_the_file_is_a_suggestion_and_no_source(file, expected, tmp_path):
    path = silent_file(TINY, tmp_path, file)
    refused(
        own_size(TINY), path, f"{expected}.* as published, or .*8, 8, 8, 8.* if it was trained at"
    )
    model = own_size(TINY, pretrained_window_sizes=12)
    load_checkpoint(model, path)  # the name does not overrule a setting
    assert model.pretrained_window_sizes == ((12, 12),) * 4


@pytest.mark.heavy
def test_the_name_of_a_variant_counts_only_with_its_own_windows(tmp_path):
    path = silent_file(TINY, tmp_path)
    for model in (build_backbone(TINY), build_backbone(TINY, window_size=(8, 8, 8, 8))):
        report = load_checkpoint(model, path)
        assert report.pretrained_windows.sizes == ((8, 8),) * 4
        assert report.pretrained_windows.source == "the model; the file does not specify them"
    refused(build_backbone(TINY, window_size=12), path, "does not specify the windows")
    for pretrained in (8, 12):
        model = build_backbone(TINY, window_size=12, pretrained_window_sizes=pretrained)
        load_checkpoint(model, path)
        assert model.pretrained_window_sizes == ((pretrained, pretrained),) * 4
    # A file that specifies them needs no statement.
    load_checkpoint(
        build_backbone(TINY, window_size=12),
        published(native_state(TINY), TINY, "mmpretrain", tmp_path),
    )


@pytest.mark.heavy
def test_the_size_of_a_published_model_is_no_source(tmp_path):
    """All published models of this size have the windows 12, 12, 12, 6; a user's need not."""
    name = "swinv2_large_window12_192"
    words = suggestion(tmp_path / "x.pth", architecture_of(name))
    assert words == "[12, 12, 12, 6] for swinv2_large_window12_192"


@pytest.mark.heavy
def test_tables_are_a_source_for_every_released_pair(tmp_path):
    for name in VARIANTS:
        variant = VARIANTS[name]
        small = Variant(
            16, (1, 1, 1, 1), (1, 2, 4, 8), variant.window_sizes, variant.pretrained_window_sizes,
            variant.image_size,
        )  # fmt: skip
        path = published(native_state(small, num_classes=2), small, "mmpretrain", tmp_path)
        model = SwinV2(16, (1, 1, 1, 1), num_heads=(1, 2, 4, 8), window_size=7)
        report = load_checkpoint(model, path)
        assert model.pretrained_window_sizes == tuple(
            (p, p) for p in variant.pretrained_window_sizes
        )
        assert "relative_coords_table" in report.pretrained_windows.source


@pytest.mark.parametrize(
    ("pretrained", "expected"),
    [([0, 0, 0, 0], (16, 16, 16, 8)), ([12, 12, 12, 6], (12, 12, 12, 6))],
)
@pytest.mark.heavy
def test_hugging_faces_config_is_a_source(pretrained, expected, tmp_path):
    path = write(PUBLISHERS["hugging_face"](native_state(TINY), TINY), tmp_path / "model.bin")
    config = {
        "model_type": "swinv2",
        "window_size": 16,
        "pretrained_window_sizes": pretrained,
        "image_size": 256,
        "patch_size": 4,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = own_size(TINY)
    report = load_checkpoint(model, path)
    assert model.pretrained_window_sizes == tuple((p, p) for p in expected)
    assert "config.json" in report.pretrained_windows.source
    (tmp_path / "config.json").write_text("{")
    refused(own_size(TINY), path, "config.json is incomplete or damaged")


@pytest.mark.heavy
def test_timms_config_is_a_source_if_it_has_the_arguments(tmp_path):
    path = silent_file(TINY, tmp_path, "pytorch_model.bin")
    config = {"architecture": "swinv2_tiny_window16_256.ms_in1k", "pretrained_cfg": {}}
    recorded = {"img_size": [256, 256], "in_chans": 3, "num_classes": 1000}
    for arguments, expected in [
        (None, None),  # older configs have no arguments, also of a model with another window
        ({"num_classes": 5}, None),
        (recorded, (16, 16, 16, 8)),
        (recorded | {"img_size": 512}, (16, 16, 16, 16)),
        ({"window_size": 12}, (12, 12, 12, 8)),
        ({"window_size": [12, 12, 6, 4]}, (12, 12, 6, 4)),
        ({"window_size": 12, "pretrained_window_sizes": [0, 8, 8, 8]}, (12, 8, 8, 8)),
    ]:
        (tmp_path / "config.json").write_text(json.dumps(config | {"model_args": arguments}))
        if expected is None:
            refused(own_size(TINY), path, "does not specify")
        else:
            model = own_size(TINY)
            load_checkpoint(model, path)
            assert model.pretrained_window_sizes == tuple((p, p) for p in expected)


def test_a_config_of_other_weights_is_no_source(tmp_path):
    """config.json belongs to model.safetensors, or to the only weights in the folder."""
    (tmp_path / "config.json").write_text("{}")
    for name in ("model.safetensors", "tuned.safetensors"):
        (tmp_path / name).touch()
    assert settings_beside(tmp_path / "model.safetensors") == {}
    assert settings_beside(tmp_path / "tuned.safetensors") is None
    (tmp_path / "model.safetensors").unlink()
    assert settings_beside(tmp_path / "tuned.safetensors") == {}


def test_a_contradicting_setting_is_refused(state, tmp_path):
    path = published(state, SMALL, "microsoft", tmp_path)  # 6, 6, 6, 3
    model = small_classifier(pretrained_window_sizes=8)
    refused(
        model,
        path,
        r"pretrained windows 8, 8, 8, 8.*trained with 6, 6, 6, 3.*PRETRAINED_WINDOW_SIZES\) "
        r"\(6, 6, 6, 3\)",
    )


@pytest.mark.heavy
def test_variants_of_another_pretrained_window_are_refused(tmp_path):
    name = "swinv2_tiny_window16_256"
    path = published(native_state(name), name, "microsoft", tmp_path)
    refused(build_backbone(TINY), path, "8, 8, 8, 8.*16, 16, 16, 8")
    load_checkpoint(build_backbone(name, window_size=12), path)  # the window itself is free


def test_damaged_tables_are_refused(state, tmp_path):
    key = "layers.1.blocks.0.attn.relative_coords_table"

    def with_table(table: Tensor | None) -> Path:
        def change(tensors: dict) -> None:
            tensors.pop(key)
            if table is None:
                tensors.pop(key.replace("blocks.0", "blocks.1"))
            else:
                tensors[key] = table

        return changed(state, change, tmp_path)

    model = small_classifier()
    good = PUBLISHERS["microsoft"](state, SMALL)["model"][key]
    linear = torch.linspace(-1, 1, 15)
    linear = torch.stack(torch.meshgrid(linear, linear, indexing="ij"), dim=-1)[None]
    refused(model, with_table(linear), "is not a table of log-spaced offsets")
    refused(model, with_table(good * 0), "is not a table of log-spaced offsets")
    refused(model, with_table(good[0]), r"must be \(1, 2 Mh - 1, 2 Mw - 1, 2\)")
    refused(model, with_table(good[:, :, 1:]), r"must be \(1, 2 Mh - 1, 2 Mw - 1, 2\)")
    refused(model, with_table(good * float("nan")), "is not a table of log-spaced offsets")
    refused(model, with_table(None), r"relative_coords_table is missing: stages \[0, 2, 3\] of 4")


def test_own_files_carry_their_pretrained_windows(tmp_path):
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"own{suffix}"
        save_checkpoint(small_backbone(pretrained_window_sizes=((3, 5), 2)), path)
        model = small_backbone()
        assert model.pretrained_windows_assumed
        report = load_checkpoint(model, path)
        assert model.pretrained_window_sizes == ((3, 5), (2, 2))
        assert not model.pretrained_windows_assumed
        assert "3x5, 2 per stage, from our notes in the file" in str(report)


def test_tables_are_a_source_even_without_a_stem(state, tmp_path):
    path = changed(state, lambda tensors: tensors.pop("patch_embed.proj.weight"), tmp_path)
    model = small_classifier(pretrained_window_sizes=8)
    refused(model, path, "trained with 6, 6, 6, 3", partial=True)


@pytest.mark.heavy
def test_own_files_may_have_any_pretrained_window(tmp_path):
    """A published name or size is no source for a user's own training."""
    model = build_backbone(TINY, window_size=16, pretrained_window_sizes=16)
    path = write(model.state_dict(), tmp_path / "my_swinv2_tiny_window8_256.pth")
    report = load_checkpoint(model, path)
    assert report.pretrained_windows.source == "the model; the file does not specify them"
    refused(own_size(TINY), path, "does not specify the windows")


@pytest.mark.parametrize(
    "notes", [[], 3, "x", [[4, 4]], [[4, 4], [2]], [4.0, 2.0], [True, 2], [0, 2], [10**400, 2]]
)
def test_invalid_notes_are_refused(notes, tmp_path):
    content = {
        "model": small_backbone().state_dict(),
        "swinv2_backbone": {"pretrained_window_sizes": notes},
    }
    path = write(content, tmp_path / "x.pth")
    refused(small_backbone(), path, r"x.pth: the pretrained windows cannot be read")


@pytest.mark.parametrize("notes", ["[]", "3", "null", '"x"', "{}"])
def test_notes_of_another_kind_are_no_source(notes, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(small_backbone().state_dict(), path, {"swinv2_backbone": notes})
    refused(small_backbone(), path, "does not specify the windows")
    load_checkpoint(small_backbone(pretrained_window_sizes=4), path)


@pytest.mark.parametrize(
    "config",
    [
        "[]",
        "3",
        "[" * 100_000,
        '{"model_type": "swinv2"}',
        '{"model_type": "swinv2", "image_size": 256, "patch_size": 4, "window_size": 8, '
        '"pretrained_window_sizes": [0, 0, 0, 0], "embed_dim": 999}',
        '{"model_type": "swinv2", "image_size": [], "window_size": 8}',
        '{"model_type": "swinv2", "image_size": 256, "patch_size": 4, "window_size": 8, '
        '"pretrained_window_sizes": [12, 12]}',
    ],
)
def test_invalid_configs_are_refused(config, state, tmp_path, monkeypatch):
    monkeypatch.setitem(VARIANTS, "small", SMALL)
    path = write(PUBLISHERS["hugging_face"](state, "small"), tmp_path / "model.bin")
    (tmp_path / "config.json").write_text(config)
    refused(own_size("small"), path, "model.bin: the pretrained windows cannot be read")


@torch.no_grad()
def test_a_used_model_follows_another_pretrained_window_at_once():
    model = randomize(small_backbone(pretrained_window_sizes=4), seed=0).eval()
    expected = randomize(small_backbone(pretrained_window_sizes=(6, 3)), seed=0).eval()
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = model(images)["res3"]
    model.set_pretrained_window_sizes((6, 3))
    assert torch.equal(model(images)["res3"], expected(images)["res3"])
    assert not torch.equal(model(images)["res3"], before)
