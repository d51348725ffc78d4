"""Every publisher's file yields our weights bit by bit, and the publisher's logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoint_files import (
    SMALL,
    TINY,
    assert_equal,
    published,
    random_state,
    small_classifier,
    state_of,
)
from models import largest_difference, oracle_features, pictures
from oracle import randomize
from publishers import (
    PEER_CLASSIFIERS,
    PUBLISHERS,
    TRAINING_FILES,
    classifier,
    filled_classifier,
    head,
    headless,
    native_state,
    publishers_of,
    save,
)
from torch import Tensor, nn

from swinv2_backbone import (
    VARIANTS,
    SwinV2,
    SwinV2Classifier,
    Variant,
    build_backbone,
    build_classifier,
    load_checkpoint,
    save_checkpoint,
)
from swinv2_backbone.backbone import FEATURES
from swinv2_backbone.checkpoints.convert import TARGETS
from swinv2_backbone.checkpoints.layouts import hugging_face, mmpretrain, torchvision
from swinv2_backbone.checkpoints.read import read_checkpoint

LAYOUTS = {
    "microsoft": "Microsoft",
    "timm": "timm",
    "hugging_face": "Hugging Face",
    "torchvision": "torchvision",
    "mmpretrain": "mmpretrain",
    "simmim": "SimMIM",
}
FAST = (TINY,)


# --- the weights themselves ------------------------------------------------------------------


@pytest.mark.parametrize("publisher", publishers_of(TINY))
@pytest.mark.heavy
def test_weights_are_read_bit_by_bit(publisher, tmp_path):
    state = random_state(TINY)
    found = read_checkpoint(published(state, TINY, publisher, tmp_path))
    assert found.layout.name == LAYOUTS[publisher]
    assert_equal(found.tensors, headless(state))
    assert_equal(found.head, {} if publisher == "simmim" else head(state))
    assert found.unexpected == []


@pytest.mark.parametrize(
    "publisher",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ("timm", "torchvision") else ())
        for name in TRAINING_FILES
    ],
)
@pytest.mark.heavy
def test_files_of_training_give_their_weights(publisher, tmp_path):
    state = random_state(TINY)
    save(TRAINING_FILES[publisher](state, TINY), tmp_path / "checkpoint.pth")
    model = filled_classifier(native_state(TINY, seed=1), TINY)
    load_checkpoint(model.backbone, tmp_path / "checkpoint.pth")
    assert_equal(model.backbone.state_dict(), headless(state))


@pytest.mark.parametrize("publisher", publishers_of(SMALL))
def test_files_of_other_sizes_are_read(publisher, tmp_path):
    state = native_state(SMALL, num_classes=10)
    model = small_classifier()
    target = model.backbone if publisher == "simmim" else model
    report = load_checkpoint(target, published(state, SMALL, publisher, tmp_path))
    assert report.complete
    assert_equal(model.backbone.state_dict(), headless(state))


def test_extra_norms_of_huge_models_are_read(tmp_path):
    variant = Variant(16, (2, 2, 4, 2), (1, 2, 4, 8), (8,) * 4, (8,) * 4, 256, extra_norm_every=2)
    state = native_state(variant, num_classes=10)
    assert sum(".norm3." in key for key in state) == 10
    found = read_checkpoint(published(state, variant, "mmpretrain", tmp_path))
    assert_equal(found.tensors, headless(state))


@pytest.mark.parametrize(
    "prefix", ["", "module.", "backbone.", "backbone.bottom_up.", "encoder.", "model_ema.", "a.b."]
)
@pytest.mark.parametrize("publisher", publishers_of(SMALL))
@pytest.mark.heavy
def test_backbones_are_found_behind_any_prefix(publisher, prefix, tmp_path):
    state = headless(native_state(SMALL))
    content = PUBLISHERS[publisher](state | head_of_ten(), SMALL)
    content = content.get("model") or content["state_dict"]
    torch.save({prefix + key: value for key, value in content.items()}, tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth")
    assert_equal(found.tensors, state)
    assert found.layout.name == LAYOUTS[publisher]


def head_of_ten() -> dict[str, Tensor]:
    return {"head.weight": torch.ones(10, 256), "head.bias": torch.zeros(10)}


def test_bare_hugging_face_models_are_read(tmp_path):
    content = PUBLISHERS["hugging_face"](random_state(TINY), TINY)
    bare = {k.removeprefix("swinv2."): v for k, v in content.items() if k.startswith("swinv2.")}
    torch.save(bare, tmp_path / "pytorch_model.bin")
    found = read_checkpoint(tmp_path / "pytorch_model.bin")
    assert_equal(found.tensors, headless(random_state(TINY)))
    assert read_checkpoint(tmp_path).path == found.path  # also by the folder of the model


def test_averaged_weights_are_preferred_and_reported(tmp_path):
    state, other = native_state(SMALL, num_classes=10), native_state(SMALL, seed=1, num_classes=10)
    content = PUBLISHERS["microsoft"](other, SMALL)
    content["model_ema"] = PUBLISHERS["microsoft"](state, SMALL)["model"]
    torch.save(content, tmp_path / "x.pth")
    model = small_classifier()
    report = load_checkpoint(model, tmp_path / "x.pth")
    assert_equal(state_of(model), state)
    assert "model_ema" in str(report)


def test_several_backbones_need_a_prefix(tmp_path):
    state = native_state(SMALL, num_classes=10)
    content = PUBLISHERS["microsoft"](state, SMALL)["model"]
    both = {f"{who}.{key}": v for who in ("student", "teacher") for key, v in content.items()}
    both["student.norm.bias"] = both["student.norm.bias"] + 1
    torch.save(both, tmp_path / "x.pth")
    model = small_classifier()
    with pytest.raises(ValueError, match=r"2 backbones.*'student\.', 'teacher\.'"):
        load_checkpoint(model, tmp_path / "x.pth")
    load_checkpoint(model, tmp_path / "x.pth", prefix="teacher.")
    assert_equal(state_of(model), state)


# --- what the models compute -----------------------------------------------------------------


def cases() -> list:
    return [
        pytest.param(name, peer, marks=() if name in FAST else pytest.mark.slow)
        for name in VARIANTS
        for peer in publishers_of(name)
        if peer in PEER_CLASSIFIERS
    ]


@torch.no_grad()
def differences(name: str, peer: str, folder: Path) -> dict[str, float]:
    """Return the largest differences of logits and features between a peer and ours, by name."""
    state, size = random_state(name), VARIANTS[name].image_size
    theirs = PEER_CLASSIFIERS[peer].model(state, name)
    torch.save(theirs.state_dict(), folder / "theirs.pth")
    ours = classifier(name, 1000, out_features=FEATURES)
    load_checkpoint(ours, folder / "theirs.pth")
    images = pictures(1, 3, size, size)
    maps = PEER_CLASSIFIERS[peer].features(theirs, images)
    features = ours.backbone(images)
    stages = [fresh_norm(stage) for stage in maps.stages[:3]]  # new norms: weight 1, bias 0
    found = {"logits": difference(ours(images), PEER_CLASSIFIERS[peer].logits(theirs, images))}
    for name, their in zip(FEATURES, [*stages, maps.normed], strict=True):
        found[name] = difference(features[name], their)
    return found


def difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


def fresh_norm(maps: Tensor) -> Tensor:
    """Apply a newly initialized LayerNorm to (B, C, h, w)."""
    return nn.functional.layer_norm(maps.permute(0, 2, 3, 1), maps.shape[1:2]).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("name", "peer"), cases())
@pytest.mark.heavy
def test_logits_and_features_equal_the_peers(name, peer, tmp_path):
    found = differences(name, peer, tmp_path)
    assert all(value <= 1e-5 for value in found.values()), found


@torch.no_grad()
@pytest.mark.parametrize(
    "publisher", ["mmpretrain", pytest.param("microsoft", marks=pytest.mark.slow)]
)
@pytest.mark.heavy
def test_logits_equal_those_of_the_weights_that_were_saved(publisher, tmp_path):
    state = random_state(TINY)
    images = pictures(1, 3, 256, 256)
    expected = filled_classifier(state, TINY)(images)
    model = build_classifier(TINY, weights=published(state, TINY, publisher, tmp_path)).eval()
    assert torch.equal(model(images), expected)


@pytest.mark.heavy
def test_a_wrong_merge_order_is_detected(tmp_path, monkeypatch):
    """mmpretrain's columns are not reordered."""
    as_it_stands = {**vars(mmpretrain.MMPRETRAIN), "to_ours": dict}
    layout = type(mmpretrain.MMPRETRAIN)(**as_it_stands)
    monkeypatch.setattr("swinv2_backbone.checkpoints.recognize.LAYOUTS", (layout,))
    check_that_features_differ("mmpretrain", tmp_path)


def test_merging_of_the_wrong_stage_is_detected(tmp_path):
    """Microsoft's merging is loaded into the next stage, where it does not fit."""
    content = PUBLISHERS["microsoft"](random_state(TINY), TINY)["model"]
    shifted = {
        key.replace("layers.0.downsample", "layers.3.downsample"): value
        for key, value in content.items()
    }
    torch.save({"model": shifted}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="downsample.*expected"):
        load_checkpoint(build_classifier(TINY), tmp_path / "x.pth")


@pytest.mark.heavy
def test_swapped_norms_are_detected(tmp_path, monkeypatch):
    """Hugging Face's misleading names are taken literally."""
    table = hugging_face.HUGGING_FACE.in_block
    swapped = table | {"norm1": table["norm2"], "norm2": table["norm1"]}
    layout = type(hugging_face.HUGGING_FACE)(
        **{**vars(hugging_face.HUGGING_FACE), "in_block": swapped}
    )
    monkeypatch.setattr("swinv2_backbone.checkpoints.recognize.LAYOUTS", (layout,))
    check_that_features_differ("hugging_face", tmp_path)


@torch.no_grad()
def check_that_features_differ(publisher: str, folder: Path) -> None:
    # It must load without an error, otherwise the test shows nothing about the comparison.
    state = random_state(TINY)
    wrong = build_classifier(TINY, weights=published(state, TINY, publisher, folder)).eval()
    images = pictures(1, 3, 256, 256)
    found = difference(wrong(images), filled_classifier(state, TINY)(images))
    assert found > 1e-2, found


# --- round trips -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("to", [to for to in TARGETS if to != "detectron2"])
def test_round_trips_are_exact(to, suffix, tmp_path):
    model = small_square_classifier()
    assert save_checkpoint(model, tmp_path / f"there{suffix}", to) == []
    back = small_square_classifier(seed=1)
    report = load_checkpoint(back, tmp_path / f"there{suffix}")
    assert report.complete
    assert_equal(back.state_dict(), model.state_dict())
    # torchvision's files have tables instead of notes; Hugging Face's a config.json.
    assert back.backbone.pretrained_window_sizes == model.backbone.pretrained_window_sizes
    assert "the model" not in report.pretrained_windows.source


def small_square_classifier(seed: int = 0) -> SwinV2Classifier:
    backbone = SwinV2(
        32,
        (2, 2, 2, 2),
        num_heads=(1, 2, 4, 8),
        window_size=4,
        out_features=("res5",),
        pretrained_window_sizes=None if seed else 6,
    )
    model = SwinV2Classifier(backbone, 10)
    return randomize(model, seed)


@pytest.mark.parametrize("to", TARGETS)
def test_backbones_with_four_norms_keep_them_where_there_is_room(to, tmp_path):
    model = randomize(
        SwinV2(32, (2, 2), num_heads=(1, 2), window_size=4, out_features=("res2", "res3")), seed=0
    )
    path = tmp_path / "x.pth"
    left = save_checkpoint(model, path, to)
    has_all_norms = to in ("native", "detectron2", "mmpretrain")
    # The last stage's norm is the final norm of every layout.
    assert set(left) == (set() if has_all_norms else {"norms.res2.weight", "norms.res2.bias"})
    found = read_checkpoint(path)
    kept = {key: value for key, value in model.state_dict().items() if key not in left}
    assert_equal(found.tensors, kept)


def test_extra_norms_are_not_written_where_there_is_no_room(tmp_path):
    model = SwinV2(
        32,
        (2, 2),
        num_heads=(1, 2),
        window_size=4,
        out_features=("res2", "res3"),
        extra_norm_every=2,
    )
    with pytest.raises(ValueError, match="'timm' has no place for 4 tensors, such as .*norm3"):
        save_checkpoint(model, tmp_path / "x.pth", "timm")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("layout", "to_ours", "from_ours"),
    [
        ("Hugging Face", hugging_face.join_qkv, hugging_face.split_qkv),
        ("torchvision", torchvision.split_bias, torchvision.join_bias),
        ("mmpretrain", mmpretrain.from_unfold, mmpretrain.to_unfold),
    ],
)
def test_rearrangements_are_inverses(layout, to_ours, from_ours):
    state = headless(native_state(SMALL))
    there = from_ours(state)
    assert there.keys() != state.keys() or layout == "mmpretrain"
    assert_equal(to_ours(there), state)


# --- another window --------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("window", [16, 24])
@pytest.mark.slow
def test_weights_of_window_8_at_a_wider_one_equal_the_oracle(window, tmp_path):
    state = native_state("swinv2_tiny_window8_256")
    path = published(state, TINY, "mmpretrain", tmp_path)
    model = build_backbone(TINY, weights=path, window_size=window).eval()
    images = pictures(1, 3, 4 * window, 4 * window + 20)
    features = model(images)
    right = oracle_features(
        model, images, window_sizes=[window] * 4, pretrained_window_sizes=[8] * 4
    )
    assert largest_difference(features, right) < 1e-4
    wrong = oracle_features(
        model, images, window_sizes=[window] * 4, pretrained_window_sizes=[window] * 4
    )
    assert largest_difference(features, wrong) > 1e-2


@pytest.mark.heavy
def test_a_loaded_classifier_returns_logits_features_and_maps(tmp_path):
    path = published(random_state(TINY), TINY, "timm", tmp_path)
    model = build_classifier(TINY, weights=path).eval()
    images = pictures(2, 3, 64, 96)
    assert model(images).shape == (2, 1000)
    assert model.extract_features(images).shape == (2, 768)
    maps = build_backbone(TINY, weights=path)(images)
    assert [tuple(m.shape[1:]) for m in maps.values()] == [
        (96, 16, 24),
        (192, 8, 12),
        (384, 4, 6),
        (768, 2, 3),
    ]
