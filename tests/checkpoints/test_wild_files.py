"""Every kind of file that people have gives its publisher's features, or is refused.

The tables of docs/CHECKPOINTS.md are what these tests compute.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import wild_files
from documents import ROOT
from foreign_files import FOREIGN
from models import FEATURES, largest_difference, pictures
from transformers import Swin2SRConfig, Swin2SRModel
from wild_files import KINDS, Kind, Written, ours

from swinv2_backbone import LoadReport, SwinV2, load_checkpoint
from swinv2_backbone.checkpoints.architecture import architecture_of
from swinv2_backbone.checkpoints.built_windows import TIMM
from swinv2_backbone.checkpoints.stated_settings import builds_in, windows_of_builds

PAGE = (ROOT / "docs" / "CHECKPOINTS.md").read_text(encoding="utf-8")
SETTING = "refused without `PRETRAINED_WINDOW_SIZES`"


@torch.no_grad()
def error_of(model: SwinV2, written: Written, report: LoadReport) -> float:
    """Return the largest difference to the publisher's features, relative to the largest."""
    has_norm = "norms.res5.weight" in report.used
    features = {name: model(written.image)[name] for name in written.maps}
    return largest_difference(features, wild_files.expected(written, has_norm))


def outcome(kind: Kind, folder: Path, window: int, side: int) -> tuple[str, str]:
    """Load a file with our model at its window, and return two cells of the table.

    Raises:
        AssertionError: the features differ from the publisher's.
    """
    written = kind.write(folder, window, side)
    try:
        model = ours(window)
        report = load_checkpoint(model, written.path)
        source = f"from {report.pretrained_windows.source}"
    except ValueError as error:
        assert "does not specify the windows it was trained with" in str(error)
        # What a user says who knows how the publisher normalizes.
        maps = [side // 4 // 2**stage for stage in range(4)]
        model = ours(window, pretrained_window_sizes=[min(window, length) for length in maps])
        report, source = load_checkpoint(model, written.path), SETTING
    assert error_of(model, written, report) <= 1e-5
    return source, "loaded" if "norms.res5.weight" in report.used else "new"


@pytest.mark.heavy
def test_the_table_of_files_is_what_happens(tmp_path):
    rows = ["| file | pretrained windows | final norm |", "|---|---|---|"]
    for number, kind in enumerate(KINDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        rows.append(f"| {kind.file} | {' | '.join(outcome(kind, folder, 7, 224))} |")
    assert "\n".join(rows) in PAGE, "\n".join(rows)


@pytest.mark.parametrize("window", range(8, 33))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.file)
@pytest.mark.slow
def test_windows_of_8_to_32_give_the_publishers_features(kind, window, tmp_path):
    outcome(kind, tmp_path, window, 32 * window)


@pytest.mark.parametrize("window", [8, pytest.param(16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", wild_files.SHRINKING, ids=lambda kind: kind.file)
def test_windows_that_are_larger_than_a_map_give_the_publishers_features(kind, window, tmp_path):
    """At this image size the last map is half a window, which is then the pretrained window."""
    outcome(kind, tmp_path, window, 16 * window)


@pytest.mark.parametrize("window", [7, 12])
def test_a_wrong_pretrained_window_would_be_detected(window, tmp_path):
    written = wild_files.timm_with_args(tmp_path, window, 32 * window)
    model = ours(window)
    report = load_checkpoint(model, written.path)
    assert error_of(model, written, report) <= 1e-5
    model.set_pretrained_window_sizes(window + 1)
    assert error_of(model, written, report) > 1e-3


# --- refused ---------------------------------------------------------------------------------


def hugging_face(**options) -> Callable[[Path], Path]:
    return lambda folder: wild_files.hugging_face_model(folder, 4, 128, **options).path


def changed_config(**options) -> Callable[[Path], Path]:
    """A config.json with other settings beside weights of the usual shapes."""

    def write(folder: Path) -> Path:
        path = wild_files.hugging_face_model(folder, 4, 128).path
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | options))
        return path

    return write


def timm_arguments(**options) -> Callable[[Path], Path]:
    return lambda folder: wild_files.hugging_face_timm(folder, 4, 128, **options).path


def swin2sr(folder: Path) -> Path:
    size = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
    Swin2SRModel(Swin2SRConfig(image_size=16, **size)).save_pretrained(folder)
    return folder


def original_swin2sr(folder: Path) -> Path:
    key = "layers.0.residual_group.blocks.0.attn.logit_scale"
    torch.save({"params": {key: torch.zeros(6, 1, 1)}}, folder / "x.pth")
    return folder / "x.pth"


def timm_state(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save(timm.create_model(name, **wild_files.SIZE).state_dict(), folder / "x.pth")
        return folder / "x.pth"

    return write


# As docs/CHECKPOINTS.md lists them -> (a writer of the file, the reason).
REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "Swin2SR, Hugging Face's": (swin2sr, "this is Swin2SR"),
    "Swin2SR, the original": (original_swin2sr, "this is Swin2SR"),
    "Swin Transformer V1": (timm_state("swin_tiny_patch4_window7_224"), "this is Swin Transf"),
    "timm's `swinv2_cr_*`": (timm_state("swinv2_cr_tiny_224"), "this is timm's swinv2_cr"),
    "`hidden_act` other than `gelu`": (hugging_face(hidden_act="relu"), "hidden_act 'relu'"),
    "`act_layer` of timm other than `gelu`": (timm_arguments(act_layer="relu"), "act_layer 'relu'"),
    "`layer_norm_eps` other than 1e-5": (changed_config(layer_norm_eps=1e-12), "layer_norm_eps 1e"),
    "`patch_size` other than 4": (hugging_face(patch_size=2), "patch_size 2"),
    "`mlp_ratio` other than 4": (hugging_face(mlp_ratio=2.0), "mlp_ratio 2.0"),
    "`use_absolute_embeddings`": (
        changed_config(use_absolute_embeddings=True),
        "use_absolute_embeddings True",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_models_that_are_no_swinv2_of_ours_are_refused_with_the_reason(kind, tmp_path):
    write, reason = REFUSED[kind]
    path = write(tmp_path)
    for options in ({}, {"pretrained_window_sizes": 4}):
        with pytest.raises(ValueError, match=reason):
            load_checkpoint(ours(4, **options), path)


@pytest.mark.parametrize(("option", "reason"), [("patch_size", 2), ("mlp_ratio", 2.0)])
def test_shapes_tell_the_design_where_no_config_does(option, reason, tmp_path):
    path = hugging_face(**{option: reason})(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=rf"{option} of the file is .?2.*every SwinV2 here 4"):
        load_checkpoint(ours(4, pretrained_window_sizes=4), path)


def test_the_list_of_refused_files_is_in_the_docs():
    for kind, (_, reason) in {**FOREIGN, **REFUSED}.items():
        assert f"| {kind} |" in PAGE and reason, kind


# --- what is not stated is not assumed -------------------------------------------------------


STATED = {  # hyper_parameters -> the pretrained windows of a model of timm's T, or None
    "windows": ({"window_size": 12, "img_size": 256}, (12, 12, 12, 8)),
    "nested": ({"net": {"window_size": [8, 8], "image_size": [128, 256]}}, (8, 8, 8, (4, 8))),
    "pretrained": (
        {"window_size": 16, "img_size": 256, "pretrained_window_sizes": [8, 8, 8, 4]},
        (8, 8, 8, 4),
    ),
    "kwargs": ({"model": "swinv2_tiny_window16_256", "model_kwargs": {}}, (16, 16, 16, 8)),
    "nonsense": ({"window_size": "auto", "img_size": 256}, None),
    "named": (
        {"name": "swinv2_tiny_window8_256", "window_size": 16, "image_size": 512},
        (16, 16, 16, 16),
    ),
    "no image size": ({"window_size": 12}, None),
    "no window": ({"model": "swinv2_tiny_window8_256", "img_size": 256}, None),
    "another model": (
        {"model": "swinv2_base_window8_256", "window_size": 8, "img_size": 256},
        None,
    ),
    "two windows": (
        [{"window_size": 12, "img_size": 256}, {"window_size": 8, "img_size": 256}],
        None,
    ),
    "odd map": ({"window_size": 12, "img_size": 200}, None),  # versions of timm differ
}


@pytest.mark.parametrize("case", STATED)
def test_settings_count_if_they_determine_the_windows(case):
    stated, expected = STATED[case]
    size = architecture_of("swinv2_tiny_window8_256")
    found = windows_of_builds(builds_in({"hyper_parameters": stated}), size, TIMM, "here")
    if expected is None:
        assert found is None
    else:
        assert found.sizes == tuple(p if isinstance(p, tuple) else (p, p) for p in expected)


def test_a_users_window_of_a_size_with_fixed_pretrained_windows_does_not_count():
    """timm's B at window 16 has the pretrained windows 16, or 12 if built as window12to16."""
    size = architecture_of("swinv2_base_window8_256")
    stated = {"window_size": 16, "img_size": 256}
    assert windows_of_builds(builds_in(stated), size, TIMM, "here") is None
    named = stated | {"model": "swinv2_base_window12to16_192to256"}
    found = windows_of_builds(builds_in(named), size, TIMM, "here")
    assert found.sizes == ((12, 12), (12, 12), (12, 12), (6, 6))


def test_biases_are_zeros_only_if_the_whole_file_has_none(tmp_path):
    path = wild_files.hugging_face_model(tmp_path, 4, 128, qkv_bias=False).path
    model = ours(4)
    report = load_checkpoint(model, path)
    assert "qkv_bias=False" in str(report)
    assert not any(block.attn.q_bias.any() for stage in model.layers for block in stage.blocks)
    content = {f"norms.res5.{key}": torch.ones(128) for key in ("weight", "bias")}
    content |= {key: value for key, value in model.state_dict().items() if "norms" not in key}
    del content["layers.0.blocks.0.attn.q_bias"]
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="missing: layers.0.blocks.0.attn.q_bias"):
        load_checkpoint(ours(4, pretrained_window_sizes=4), tmp_path / "x.pth")


def test_two_state_dicts_of_a_users_own_are_refused(tmp_path):
    state = ours(4).state_dict()
    torch.save({"epoch": 3, "net": state}, tmp_path / "x.pth")
    load_checkpoint(ours(4, pretrained_window_sizes=4), tmp_path / "x.pth")
    torch.save({"student": state, "teacher": state}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"2 state dicts with a SwinV2, \['student', 'teacher'\]"):
        load_checkpoint(ours(4, pretrained_window_sizes=4), tmp_path / "x.pth")


def test_the_features_of_these_tests_are_not_trivial(tmp_path):
    written = wild_files.timm_state(tmp_path, 7, 224)
    assert all(maps.std() > 0.1 for maps in written.maps.values())


# --- the libraries' own savers, where they are installed -------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_lightnings_own_file_gives_the_models_features(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self, model: str, img_size: int, window_size: int, **size):
            super().__init__()
            self.save_hyperparameters()
            self.model = wild_files.timm_model(window_size, img_size)

        def training_step(self, batch, index):
            return self.model(batch[0]).sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    module = Module(wild_files.TIMM_NAME, **wild_files.timm_arguments(7, 224))
    trainer = lightning.Trainer(
        max_steps=1, accelerator="cpu", logger=False, default_root_dir=tmp_path
    )
    images = torch.utils.data.TensorDataset(torch.ones(1, 3, 224, 224))
    trainer.fit(module, torch.utils.data.DataLoader(images))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    written = wild_files.of_timm(module.eval().model, tmp_path / "last.ckpt", 224)
    model = ours(7)
    report = load_checkpoint(model, written.path)
    assert "hyper_parameters" in report.pretrained_windows.source
    assert error_of(model, written, report) <= 1e-5


def test_smps_own_folder_gives_the_encoders_features(tmp_path):
    smp = pytest.importorskip("segmentation_models_pytorch")
    arguments = wild_files.timm_arguments(7, 224)
    unet = smp.Unet(f"tu-{wild_files.TIMM_NAME}", encoder_weights=None, **arguments)
    wild_files.random_weights(unet).save_pretrained(tmp_path)
    written = wild_files.features_only(unet.encoder.model, tmp_path, 224)
    model = ours(7)
    assert error_of(model, written, load_checkpoint(model, tmp_path)) <= 1e-5


def test_mask2formers_own_folder_gives_the_backbones_features(tmp_path):
    pytest.importorskip("scipy")
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    config = Mask2FormerConfig(backbone_config=wild_files.hugging_face_config(7, 224))
    whole = wild_files.random_weights(Mask2FormerForUniversalSegmentation(config))
    whole.save_pretrained(tmp_path)
    image, encoder = pictures(1, 3, 224, 224), whole.model.pixel_level_module.encoder
    with torch.no_grad():
        maps = dict(zip(FEATURES, encoder(image).feature_maps))
    model = ours(7)
    report = load_checkpoint(model, tmp_path)
    assert error_of(model, wild_files.Written(tmp_path, image, maps), report) <= 1e-5
