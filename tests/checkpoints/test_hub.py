"""Repositories of the Hugging Face Hub, here a stand-in: read, written, read by other libraries."""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import timm
import torch
from checkpoint_files import assert_equal, refused
from hub_stand_in import Hub, hub_in
from huggingface_hub import constants
from models import pictures
from oracle import randomize
from scripts import ROOT
from torch import Tensor
from transformers import AutoModel, AutoModelForImageClassification

from swinv2_backbone import (
    SwinV2,
    SwinV2Classifier,
    build_classifier,
    load_checkpoint,
    push_to_hub,
    save_checkpoint,
    save_pretrained,
)
from swinv2_backbone.checkpoints.fetch import check_source, fetch

HERE = "hf://me/swin"


def small_backbone(seed: int = 0, in_channels: int = 3, **options) -> SwinV2:
    """Windows of 8 and 4 tokens with biases of 6 and 3; one window of the last map is 128 px."""
    sizes = {"window_size": (8, 8, 8, 4), "pretrained_window_sizes": (6, 6, 6, 3)} | options
    model = SwinV2(
        16,
        (1, 2, 2, 2),
        num_heads=(1, 2, 2, 4),
        out_features=("res5",),
        in_channels=in_channels,
        **sizes,
    )
    return in_range(randomize(model, seed))


def small_classifier(seed: int = 0, **options) -> SwinV2Classifier:
    return in_range(randomize(SwinV2Classifier(small_backbone(**options), 10), seed))


def in_range(model: SwinV2 | SwinV2Classifier) -> SwinV2 | SwinV2Classifier:
    """Halve the logit scales, so that float32 is accurate to 1e-5."""
    for name, value in model.state_dict().items():
        if name.endswith("logit_scale"):
            value /= 2
    return model.eval()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with hub_in(tmp_path / "cache") as hub:
        yield hub


@pytest.fixture
def filled(hub, tmp_path) -> tuple[Hub, SwinV2Classifier]:
    """A hub with a classifier in timm's layout, in the repository ``HERE``."""
    model = small_classifier()
    save_pretrained(model, tmp_path / "pushed", "timm")
    hub.add("me/swin", tmp_path / "pushed")
    return hub, model


# --- reading ---------------------------------------------------------------------------------


def test_weights_are_read_and_then_used_offline(filled):
    hub, model = filled
    found = small_classifier(seed=1)
    assert load_checkpoint(found, HERE).complete
    assert_equal(found.state_dict(), model.state_dict())
    assert (fetch(HERE).parent / "config.json").is_file()  # with the windows of some models
    hub.close()
    with patch.object(constants, "HF_HUB_OFFLINE", True):
        assert load_checkpoint(small_classifier(seed=1), HERE).complete


@pytest.mark.parametrize("revision", ["branch", "a%2Fb", "commit"])
def test_a_revision_is_read(revision, filled, tmp_path):
    hub, _ = filled
    other = small_classifier(seed=2)
    save_pretrained(other, tmp_path / "other", "timm")
    hub.add("me/swin", tmp_path / "other", "a/b" if revision == "a%2Fb" else "branch")
    if revision == "commit":
        revision = fetch(f"{HERE}@branch").parent.name
        assert len(revision) == 40
    found = small_classifier(seed=1)
    load_checkpoint(found, f"{HERE}@{revision}")
    assert_equal(found.state_dict(), other.state_dict())


def test_a_repository_of_old_pickles_is_read_also_offline(hub, tmp_path):
    (tmp_path / "old").mkdir()
    model = small_backbone()
    save_checkpoint(model, tmp_path / "old" / "pytorch_model.bin")
    hub.add("me/swin", tmp_path / "old")
    for offline in (False, True):
        with patch.object(constants, "HF_HUB_OFFLINE", offline):
            found = small_backbone(seed=1)
            load_checkpoint(found, HERE)
            assert_equal(found.state_dict(), model.state_dict())


def test_a_named_file_is_read(hub, tmp_path):
    (tmp_path / "many").mkdir()
    model = small_backbone()
    save_checkpoint(model, tmp_path / "many" / "sentinel.pth")
    hub.add("me/swin", tmp_path / "many")
    found = small_backbone(seed=1)
    load_checkpoint(found, f"{HERE}/sentinel.pth")
    assert_equal(found.state_dict(), model.state_dict())
    with pytest.raises(FileNotFoundError, match="hf://me/swin: the repository has none of model"):
        fetch(HERE)


def test_a_source_of_the_hub_may_have_a_digest(filled, tmp_path):
    digest = hashlib.sha256((tmp_path / "pushed" / "model.safetensors").read_bytes()).hexdigest()
    for source in (HERE, f"{HERE}@main", f"{HERE}/model.safetensors"):
        check_source(f"{source}#sha256={digest}")
        assert fetch(f"{source}#sha256={digest}").name == "model.safetensors"
        with pytest.raises(ValueError, match=f"{digest}, not 0000"):
            fetch(f"{source}#sha256={64 * '0'}")


def damaged(file: Path) -> Path:
    """Flip the last bit of a file in the cache, and return its blob."""
    blob = file.parent / os.readlink(file)
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    return blob


def test_a_damaged_file_in_the_cache_is_refused_and_the_remedy_works(filled, tmp_path):
    hub, model = filled
    file = fetch(HERE)
    link = tmp_path / "mine.safetensors"
    link.symlink_to(file)
    blob = damaged(file)
    digest = hashlib.sha256(blob.read_bytes()).hexdigest()
    assert len(blob.name) == 64
    for source in (HERE, file, file.parent, link, blob):
        remedy = "delete it and" if source == blob else rf"delete \S*blobs/{blob.name} and fetch"
        words = (
            f"damaged: .* {digest[:8]}, not {blob.name[:8]} as in the name of its blob.*{remedy}"
        )
        refused(small_classifier(seed=1), source, words)
    blob.unlink()
    found = small_classifier(seed=1)
    load_checkpoint(found, HERE)
    assert_equal(found.state_dict(), model.state_dict())


def test_a_blob_in_the_store_of_all_repositories_has_the_digest_of_its_link(filled):
    """huggingface_hub 2 can make the blob a link to blobs/AB/XET_HASH, which is no SHA-256."""
    blob = (file := fetch(HERE)).parent / os.readlink(file)
    store = blob.parents[2] / "blobs" / "ab" / f"ab{62 * '0'}"
    store.parent.mkdir(parents=True)
    blob.rename(store)
    blob.symlink_to(os.path.relpath(store, blob.parent))
    assert load_checkpoint(small_classifier(seed=1), HERE).complete
    damaged(blob)
    refused(small_classifier(seed=1), HERE, f"not {blob.name[:8]} as in the name of its blob")


def test_a_blob_that_is_not_in_git_lfs_has_no_sha_256(hub, tmp_path):
    (tmp_path / "pushed").mkdir()
    save_checkpoint(small_classifier(), tmp_path / "pushed" / "model.pth")
    os.rename(tmp_path / "pushed" / "model.pth", tmp_path / "pushed" / "model.ckpt")
    hub.add("me/swin", tmp_path / "pushed")
    file = fetch(f"{HERE}/model.ckpt")
    assert len(Path(os.readlink(file)).name) == 40
    assert load_checkpoint(small_classifier(seed=1), file).complete


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("hf://me/nothing", FileNotFoundError, "no such repository, or it is private: log in"),
        ("hf://me/swin@none", FileNotFoundError, "the repository has no such revision"),
        ("hf://me/swin/no.pth", FileNotFoundError, "the repository has none of no.pth"),
        ("hf://me/gated", PermissionError, "accept the terms .* log in by `hf auth login`"),
        ("hf://swin", ValueError, "'hf://swin' must have the form hf://org/name, hf://org/name@"),
        ("hf://me/swin@a@b", ValueError, "must have the form"),
    ],
)
def test_a_source_that_is_not_there_is_named(source, error, words, filled):
    filled[0].refused["me/gated"] = 403, "GatedRepo"
    with pytest.raises(error, match=f"{source}.*{words}" if "form" not in words else words):
        fetch(source)


def test_without_network_a_source_that_is_not_in_the_cache_is_named(hub):
    with (
        patch.object(constants, "HF_HUB_OFFLINE", True),
        pytest.raises(ConnectionError, match="hf://me/swin is not in the cache, and the Hub"),
    ):
        fetch(HERE)


def test_a_source_is_checked_early_without_the_network(hub):
    check_source(HERE)
    with pytest.raises(ValueError, match="must have the form"):
        check_source("hf://swin")
    assert hub.requests == []


def test_the_package_that_is_needed_is_named(hub):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("huggingface_hub"):
            raise ModuleNotFoundError(name)
        return original(name, *args, **kwargs)

    with (
        patch.object(builtins, "__import__", without),
        pytest.raises(ImportError, match=r"pip install 'swinv2_backbone\[hub\]'"),
    ):
        check_source(HERE)


@pytest.mark.heavy
def test_commands_read_a_source_of_the_endpoint_that_the_environment_names(filled, tmp_path):
    hub, model = filled
    target = tmp_path / "x.safetensors"
    names = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, str(ROOT / "tools" / "convert_checkpoint.py"), HERE, str(target)]
    subprocess.run(command, env=os.environ | names, check=True, capture_output=True)
    found = small_classifier(seed=1)
    load_checkpoint(found, target)
    assert_equal(found.state_dict(), model.state_dict())


# --- writing ---------------------------------------------------------------------------------


@torch.no_grad()
def features(model: SwinV2 | SwinV2Classifier, images: Tensor) -> Tensor:
    """Return the logits, or the last feature map (B, C, H, W)."""
    return model(images) if isinstance(model, SwinV2Classifier) else model(images)["res5"]


@torch.no_grad()
def by_timm(source: str, images: Tensor, classifier: bool) -> Tensor:
    model = timm.create_model(source, pretrained=True).eval()
    if classifier:
        return model(images)
    return model.forward_features(images).permute(0, 3, 1, 2)


@torch.no_grad()
def by_transformers(source: str, images: Tensor, classifier: bool, cache: Path) -> Tensor:
    kind = AutoModelForImageClassification if classifier else AutoModel
    model, info = kind.from_pretrained(source, output_loading_info=True, cache_dir=cache)
    assert not any(info.values()), info
    found = model.eval()(images)
    if classifier:
        return found.logits
    last = found.last_hidden_state  # of timm (B, H, W, C), else (B, HW, C)
    return last.permute(0, 3, 1, 2) if last.ndim == 4 else last.mT.unflatten(2, (4, 4))


@pytest.mark.parametrize("channels", [3, 5])
@pytest.mark.parametrize("kind", ["backbone", "classifier"])
@pytest.mark.parametrize("library", ["transformers", "timm"])
def test_the_libraries_own_loaders_read_a_folder_and_its_repository(
    library, kind, channels, hub, tmp_path
):
    is_classifier = kind == "classifier"
    model = (small_classifier if is_classifier else small_backbone)(in_channels=channels)
    numbers = {} if channels == 3 else {"pixel_mean": [9.0] * 5, "pixel_std": [2.0] * 5}
    folder = tmp_path / "folder"
    assert save_pretrained(model, folder, library, **numbers) == []
    commit = push_to_hub(folder, HERE)
    assert commit.startswith(hub.url) and set(hub.repositories["me/swin"]["main"]) == {
        *("README.md", "config.json", "model.safetensors")
    }
    images = pictures(2, channels, 128, 128)
    expected = features(model, images)
    for place in (str(folder), "me/swin"):
        found = [by_transformers(place, images, is_classifier, tmp_path)]
        if library == "timm":
            prefix = "local-dir:" if place == str(folder) else "hf-hub:"
            found.append(by_timm(prefix + place, images, is_classifier))
        for one in found:
            assert one.shape == expected.shape and (one - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("window", "pretrained"),
    [(7, 7), (8, 8), (12, 6), (16, 8), (24, 12), (32, 7), ((8, 8, 4, 4), 6), (((6, 8),) * 4, 8)],
)
@pytest.mark.heavy
def test_timm_has_the_windows_and_the_pretrained_windows(window, pretrained, tmp_path):
    model = small_backbone(window_size=window, pretrained_window_sizes=pretrained)
    save_pretrained(model, tmp_path / "folder", "timm")
    side = json.loads((tmp_path / "folder" / "config.json").read_text())["model_args"]["img_size"]
    images = pictures(1, 3, *side)
    found = by_timm(f"local-dir:{tmp_path / 'folder'}", images, classifier=False)
    assert (found - features(model, images)).abs().max() < 1e-5


def test_our_own_reader_has_the_same_model_from_either_folder(tmp_path):
    model = small_classifier()
    for library in ("transformers", "timm"):
        save_pretrained(model, tmp_path / library, library)
        found = small_classifier(seed=1, pretrained_window_sizes=None)
        report = load_checkpoint(found, tmp_path / library)
        assert report.complete and found.backbone.pretrained_window_sizes[-1] == (3, 3)
        assert_equal(found.state_dict(), model.state_dict())


def test_names_normalization_and_license_are_written(tmp_path):
    model, names = small_classifier(), [f"fruit {i}" for i in range(10)]
    options = {"pixel_mean": [1, 2, 3], "pixel_std": [4, 5, 6], "license": "cc-by-4.0"}
    for library in ("transformers", "timm"):
        save_pretrained(model, tmp_path / library, library, class_names=names, **options)
        card = (tmp_path / library / "README.md").read_text()
        assert f"library_name: {library}\npipeline_tag: image-classification\n" in card
        assert "license: cc-by-4.0\n" in card and "mean 1, 2, 3; standard deviation 4, 5, 6" in card
        found = AutoModelForImageClassification.from_pretrained(tmp_path / library)
        assert list(found.config.id2label.values()) == names
    config = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).pretrained_cfg
    assert config["mean"] == pytest.approx([number / 255 for number in (1, 2, 3)], abs=1e-6)


def test_without_a_license_the_card_states_none(tmp_path):
    model = small_backbone()
    save_pretrained(model, tmp_path / "x")
    assert "license" not in (tmp_path / "x" / "README.md").read_text()


def test_norms_without_a_place_are_returned_and_in_the_card(tmp_path):
    model = SwinV2(16, (1, 1), num_heads=(1, 2), window_size=4, out_features=("res2", "res3"))
    left = ["norms.res2.weight", "norms.res2.bias"]
    assert save_pretrained(model, tmp_path / "x") == left
    assert ", ".join(left) in (tmp_path / "x" / "README.md").read_text()


@pytest.mark.parametrize(
    ("library", "model", "options", "words"),
    [
        ("torch", {}, {}, "unknown library 'torch'; there are: transformers, timm"),
        ("timm", {"in_channels": 5}, {}, "takes 5 channels .* pixel_mean .* got None and None"),
        ("timm", {}, {"pixel_mean": [1], "pixel_std": [1]}, "takes 3 channels .* got 1 and 1"),
        ("timm", {}, {"pixel_mean": [1] * 3, "pixel_std": [0] * 3}, "must be above 0"),
        ("timm", {}, {"class_names": ["a"]}, "1 class_names for a model of 10 classes"),
        ("timm", {}, {"class_names": ["a"] * 10}, "differ from each other"),
        ("timm", {"window_size": (31, 29, 23, 4)}, {}, "set another window first"),
        ("transformers", {"window_size": (8, 4, 8, 4)}, {}, "one square window for all stages"),
        # Maps of 32 tokens are no multiple of 6: Hugging Face would attend the padding.
        ("transformers", {"window_size": (6, 6, 6, 4)}, {}, "the maps of 128 pixels are multiples"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is_written(
    library, model, options, words, tmp_path
):
    with pytest.raises(ValueError, match=words):
        save_pretrained(small_classifier(**model), tmp_path / "x", library, **options)
    assert not (tmp_path / "x").exists()


def test_existing_files_are_kept_unless_asked(tmp_path):
    model = small_backbone()
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match="has README.md already"):
        save_pretrained(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "mine"
    save_pretrained(model, tmp_path, overwrite=True)
    assert (tmp_path / "README.md").read_text().startswith("---\nlibrary_name: transformers")


def test_files_of_a_repository_are_kept_unless_asked(filled, tmp_path):
    hub, _ = filled
    before = dict(hub.repositories["me/swin"]["main"])
    save_pretrained(small_backbone(seed=3), tmp_path / "new")
    (tmp_path / "new" / ".hidden").write_text("mine")
    with pytest.raises(FileExistsError, match="hf://me/swin has README.md, config.json, model.saf"):
        push_to_hub(tmp_path / "new", HERE)
    push_to_hub(tmp_path / "new", f"{HERE}@branch", overwrite=True)
    assert hub.repositories["me/swin"]["main"] == before
    push_to_hub(tmp_path / "new", HERE, overwrite=True)
    pushed = {p.name: p.read_bytes() for p in (tmp_path / "new").iterdir()}
    del pushed[".hidden"]
    assert hub.repositories["me/swin"] == {"main": pushed, "branch": pushed}
    commits = [path for kind, path in hub.requests if kind == "POST" and "/commit/" in path]
    assert len(commits) == 2  # each push is one


def test_a_push_without_permission_says_how_to_log_in(hub, tmp_path):
    save_pretrained(small_backbone(), tmp_path / "x")
    hub.refused["me/swin"] = 401, ""
    with pytest.raises(PermissionError, match="hf://me/swin: .*`hf auth login`"):
        push_to_hub(tmp_path / "x", HERE)
    with pytest.raises(ValueError, match="names a file: give the repository, hf://me/swin"):
        push_to_hub(tmp_path / "x", f"{HERE}/model.safetensors")
    with pytest.raises(FileNotFoundError, match="no folder"):
        push_to_hub(tmp_path / "nowhere", HERE)


def test_a_classifier_is_built_from_a_source_of_the_hub(filled, monkeypatch):
    from swinv2_backbone import VARIANTS, Variant

    size = Variant(16, (1, 2, 2, 2), (1, 2, 2, 4), (8, 8, 8, 4), (6, 6, 6, 3), 128)
    monkeypatch.setitem(VARIANTS, "small", size)
    found = build_classifier("small", weights=HERE)
    assert found.head.out_features == 10
    refused(small_backbone(in_channels=4), fetch(HERE), "of 3 channels or bands")
