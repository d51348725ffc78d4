"""Files that do not fit are refused by name, before the model changes."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from functools import lru_cache

import pytest
import timm as timm_models
import torch
import torchvision as torchvision_models
from checkpoint_files import (
    SMALL,
    TINY,
    assert_equal,
    changed,
    published,
    random_state,
    refused,
    small_backbone,
    small_classifier,
    state_of,
    write,
)
from oracle import randomize
from publishers import PUBLISHERS, classifier, headless, native_state, publishers_of
from torch import Tensor, nn

from swinv2_backbone import (
    SwinV2,
    SwinV2Classifier,
    Variant,
    build_backbone,
    build_classifier,
    load_checkpoint,
    save_checkpoint,
)
from swinv2_backbone.build import model_for
from swinv2_backbone.checkpoints.read import read_checkpoint


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return native_state(SMALL, num_classes=10)


# --- missing, unexpected, misshaped ----------------------------------------------------------


@lru_cache
def tensors_of(publisher: str) -> dict[str, Tensor]:
    """Return the state dict of a publisher's file, of the small model if possible, else of tiny."""
    name = SMALL if publisher in publishers_of(SMALL) else TINY
    weights = native_state(SMALL, num_classes=10) if name is SMALL else random_state(TINY)
    content = PUBLISHERS[publisher](weights, name)
    return dict(content.get("model") or content.get("state_dict") or content)


@pytest.mark.parametrize(
    ("publisher", "seed"),
    [
        pytest.param(publisher, seed, marks=pytest.mark.slow if 8 * seed >= count else ())
        for publisher in PUBLISHERS
        for count in [40 if publisher in publishers_of(SMALL) else 8]
        for seed in range(count)
    ],
)
@pytest.mark.heavy
def test_no_damage_to_the_keys_loads_silently(publisher, seed, state, tmp_path):
    """Random tensors dropped, renamed or reshaped raise an error or load the same weights.

    (The tables made from windows are not needed: only losing all tables of a stage is an error.)
    """
    generator = random.Random(f"{publisher}{seed}")
    tensors = dict(tensors_of(publisher))
    for key in generator.sample(sorted(tensors), generator.choice([1, 1, 2, 5, 40])):
        value = tensors.pop(key)
        damage = generator.choice(["drop", "rename", "reshape"])
        if damage == "rename":
            tensors[generator.choice([f"{key}2", f"x.{key}", key.replace(".", "_")])] = value
        elif damage == "reshape":
            tensors[key] = torch.cat([value, value]) if value.ndim else value[None]
    path = write({"model": tensors}, tmp_path / "x.pth")
    small = publisher in publishers_of(SMALL)
    model = small_classifier() if small else build_classifier(TINY)
    target = model.backbone if publisher == "simmim" else model
    before = {key: value.clone() for key, value in target.state_dict().items()}
    try:
        load_checkpoint(target, path)
    except ValueError:
        assert_equal(target.state_dict(), before)
    else:
        found = {key.removeprefix("backbone."): v for key, v in target.state_dict().items()}
        expected = state if small else random_state(TINY)
        assert_equal(found, headless(expected) if publisher == "simmim" else expected)


@pytest.mark.heavy
def test_every_single_parameter_is_needed(tmp_path):
    """Dropping one parameter raises an error that names it."""
    path = tmp_path / "x.pth"
    variant = Variant(8, (1, 1, 1, 1), (1, 2, 4, 8), (8, 8, 8, 4), (6, 6, 6, 3), 128)
    state = native_state(variant, num_classes=10)
    content = PUBLISHERS["microsoft"](state, variant)["model"]
    buffers = ("relative_coords_table", "relative_position_index", "attn_mask")
    parameters = [key for key in content if not key.endswith(buffers)]
    assert len(parameters) == len(state)
    model = classifier(variant, num_classes=10)
    for key in parameters:
        torch.save({k: v for k, v in content.items() if k != key}, path)
        with pytest.raises(ValueError) as error:
            load_checkpoint(model, path)
        last = ".".join(key.split(".")[-2:])
        assert last.replace("norm.", "") in str(error.value) or "no Swin" in str(error.value), key


def test_missing_tensors_are_listed_and_partial_loads_the_rest(state, tmp_path, caplog):
    def drop(tensors: dict) -> None:
        del tensors["layers.2.blocks.1.mlp.fc1.weight"], tensors["norm.bias"]

    path = changed(state, drop, tmp_path)
    model = small_classifier()
    refused(
        model,
        path,
        r"2 of 153 tensors are missing: .*layers.2.blocks.1.mlp.fc1.weight, .*norms.res5.bias.*"
        "partial=True",
    )
    report = load_checkpoint(model, path, partial=True)
    assert report.missing == [
        "backbone.layers.2.blocks.1.mlp.fc1.weight",
        "backbone.norms.res5.bias",
    ]
    assert not report.complete and "missing" in str(report)
    assert "in part" in caplog.text and "norms.res5.bias" in caplog.text
    assert torch.equal(state_of(model)["norms.res5.weight"], state["norms.res5.weight"])


def test_unexpected_tensors_are_listed(state, tmp_path):
    path = changed(state, lambda t: t.update({"layers.0.gamma": torch.zeros(3)}), tmp_path)
    model = small_classifier()
    refused(model, path, r"1 unexpected tensors: layers.0.gamma \(3,\)")
    assert load_checkpoint(model, path, partial=True).unexpected == ["layers.0.gamma (3,)"]


def test_absolute_position_embeddings_are_not_ignored(state, tmp_path):
    extra = {"absolute_pos_embed": torch.zeros(1, 4096, 32)}
    path = changed(state, lambda tensors: tensors.update(extra), tmp_path)
    refused(small_classifier(), path, "unexpected tensors: absolute_pos_embed")


def test_misshaped_tensors_are_named_with_both_shapes(state, tmp_path):
    def cut(tensors: dict) -> None:
        tensors["layers.1.blocks.0.mlp.fc2.weight"] = torch.zeros(64, 255)

    path = changed(state, cut, tmp_path)
    words = r"layers.1.blocks.0.mlp.fc2.weight.*expected \(64, 256\), found \(64, 255\)"
    refused(small_classifier(), path, words)
    refused(small_classifier(), path, words, partial=True)


def test_names_in_the_file_are_given_where_they_differ(state, tmp_path):
    content = PUBLISHERS["mmpretrain"](state, SMALL)
    content["state_dict"]["backbone.stages.0.blocks.0.ffn.layers.1.bias"] = torch.zeros(1)
    path = write(content, tmp_path / "x.pth")
    refused(small_classifier(), path, r"\(backbone.stages.0.blocks.0.ffn.layers.1.bias in the file")


@pytest.mark.heavy
def test_another_size_is_reported_in_one_sentence(tmp_path):
    path = published(native_state(TINY), TINY, "timm", tmp_path)
    refused(
        build_backbone("swinv2_base_window8_256"),
        path,
        r"the model is a SwinV2 of 128 channels.*swinv2_base_window8_256.*the file of 96 channels"
        r".*swinv2_tiny_window8_256",
    )


def test_a_file_with_fewer_stages_is_refused(state, tmp_path):
    path = changed(
        state,
        lambda t: [t.pop(k) for k in list(t) if k.startswith(("layers.3", "layers.2.down"))],
        tmp_path,
    )
    refused(small_classifier(), path, r"depths \(2, 2, 2, 2\).*depths \(2, 2, 2\)")


# --- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(value, state, tmp_path):
    def poison(tensors: dict) -> None:
        poisoned = tensors["layers.0.blocks.1.attn.proj.weight"].clone()
        poisoned[3, 4] = value
        tensors["layers.0.blocks.1.attn.proj.weight"] = poisoned

    path = changed(state, poison, tmp_path)
    words = "1 tensors with NaN or infinity: .*layers.0.blocks.1.attn.proj.weight"
    refused(small_classifier(), path, words)
    refused(small_classifier(), path, words, partial=True)


def test_weights_too_large_for_the_model_are_refused(state, tmp_path):
    path = changed(state, lambda t: t.update({"norm.bias": torch.full((256,), 1e6)}), tmp_path)
    load_checkpoint(small_classifier(), path)
    refused(small_classifier().half(), path, "NaN or infinity: backbone.norms.res5.bias")


def test_integers_are_refused(state, tmp_path):
    path = changed(state, lambda t: t.update({"norm.bias": torch.ones(256).long()}), tmp_path)
    refused(small_classifier(), path, "norms.res5.bias is torch.int64, not torch.float32")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted_and_reported(dtype, state, tmp_path):
    content = PUBLISHERS["microsoft"](state, SMALL)["model"]
    cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in content.items()}
    model = small_classifier()
    report = load_checkpoint(model, write(cast, tmp_path / "x.pth"))
    assert f"converted from {str(dtype).removeprefix('torch.')}" in str(report)
    assert report.pretrained_windows.sizes == ((6, 6), (6, 6), (6, 6), (3, 3))
    expected = {key: value.to(dtype).float() for key, value in state.items()}
    assert_equal(state_of(model), expected)


# --- other families --------------------------------------------------------------------------


FAMILIES = {
    "Swin Transformer V1": lambda: timm_models.create_model("swin_tiny_patch4_window7_224"),
    "Swin Transformer V1 ": lambda: torchvision_models.models.swin_t(),
    "timm's swinv2_cr": lambda: timm_models.create_model("swinv2_cr_tiny_224"),
    "a plain Vision Transformer": lambda: timm_models.create_model("deit_tiny_patch16_224"),
    "a ConvNeXt": lambda: timm_models.create_model("convnext_atto"),
    "a ResNet": lambda: torchvision_models.models.resnet18(),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_are_refused_by_name(family, tmp_path):
    path = write(FAMILIES[family]().state_dict(), tmp_path / "x.pth")
    refused(small_classifier(), path, f"this is {family.strip()}.*not a Swin Transformer V2")


def test_anything_else_is_refused_with_its_first_keys(tmp_path):
    path = write({"conv.weight": torch.zeros(1)}, tmp_path / "x.pth")
    refused(small_classifier(), path, r"no Swin Transformer V2 of a known layout.*conv.weight")
    path = write({"epoch": 3}, tmp_path / "y.pth")
    refused(small_classifier(), path, "no state dict")
    path = write([torch.zeros(1)], tmp_path / "z.pth")
    refused(small_classifier(), path, "expected a state dict, got list")


def test_models_without_exactly_one_backbone_are_refused(state, tmp_path):
    path = published(state, SMALL, "microsoft", tmp_path)
    refused(nn.Linear(1, 1), path, "Linear has 0 SwinV2 backbones")
    two = nn.ModuleDict({"a": small_classifier(), "b": small_classifier()})
    refused(two, path, "2 SwinV2 backbones, not one: a.backbone, b.backbone")


# --- heads and norms -------------------------------------------------------------------------


@pytest.mark.heavy
def test_both_published_heads_load_into_the_classifier(tmp_path):
    for classes in (1000, 21841):
        name = "swinv2_tiny_window8_256"
        path = published(native_state(name, num_classes=classes), name, "microsoft", tmp_path)
        model = build_classifier(name, weights=path, num_classes=classes)
        assert model.head.out_features == classes
    assert build_classifier("swinv2_base_window12_192").head.out_features == 21841
    assert build_classifier("swinv2_base_window12to16_192to256").head.out_features == 1000


def test_another_number_of_classes_is_reported_and_partial_keeps_the_head(state, tmp_path, caplog):
    path = published(state, SMALL, "mmpretrain", tmp_path)
    model = SwinV2Classifier(small_classifier().backbone, 7)
    words = r"another number of classes: head.weight .*: expected \(7, 256\), found \(10, 256\)"
    refused(model, path, words)
    before = model.head.weight.clone()
    report = load_checkpoint(model, path, partial=True)
    assert len(report.reshaped) == 2 and "head.bias" in report.reshaped[1]
    assert "in part" in caplog.text and "head.weight" in caplog.text
    assert torch.equal(model.head.weight, before)
    assert_equal(model.backbone.state_dict(), headless(state))


def test_the_report_names_another_rule_for_small_maps(state, tmp_path):
    """Of a published classifier the publisher's, of our own files that of the saved model."""
    model = small_classifier()
    report = load_checkpoint(model, published(state, SMALL, "mmpretrain", tmp_path))
    assert ["small_map_rule 'square'" in note for note in report.notes] == [True]
    microsoft = published(state, SMALL, "microsoft", tmp_path)
    assert "Microsoft's own model has small_map_rule 'square', this one 'per_axis'" in str(
        load_checkpoint(model, microsoft)
    )
    assert not load_checkpoint(model.backbone, microsoft).notes
    square = small_classifier(small_map_rule="square")
    assert not load_checkpoint(square, microsoft).notes

    save_checkpoint(square.backbone, tmp_path / "own.safetensors")
    note = "the saved model has small_map_rule 'square', this one 'per_axis'"
    assert note in str(load_checkpoint(model.backbone, tmp_path / "own.safetensors"))
    again = model_for(read_checkpoint(tmp_path / "own.safetensors"))
    assert again.small_map_rule == "square"


def test_notes_of_an_unknown_rule_for_small_maps_are_refused(tmp_path):
    content = {"model": small_backbone().state_dict()}
    content["swinv2_backbone"] = {"pretrained_window_sizes": [4, 4], "small_map_rule": "both"}
    path = write(content, tmp_path / "x.pth")
    refused(small_backbone(), path, "x.pth: the small_map_rule in our notes .* 'both'")


def test_a_classifier_needs_a_head(state, tmp_path):
    path = published(state, SMALL, "simmim", tmp_path)
    refused(small_classifier(), path, "2 of 153 tensors are missing: head.weight, head.bias")


def test_the_report_gives_the_reason_for_each_dropped_tensor(state, tmp_path):
    model = SwinV2(
        32, (2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=8, out_features=("res2", "res4")
    )
    report = load_checkpoint(model, published(state, SMALL, "microsoft", tmp_path))
    text = str(report)
    for words in (
        "Microsoft",
        "6, 6, 6, 3 per stage, from relative_coords_table in the file",
        "output norms of res2, res4, which start from 1 and 0",
        "8 x made from the window; the pretrained window is read from it",
        "37 x stage 4, which the model does not need",
        "2 x output norm of res5",
        "2 x classifier of 10 classes; the model has none",
    ):
        assert words in text, (words, text)
    assert not report.complete and len(report.new) == 4
    assert model.pretrained_window_sizes == ((6, 6), (6, 6), (6, 6))


def test_the_final_norm_becomes_that_of_res5(state, tmp_path):
    model = SwinV2(32, (2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=8)
    load_checkpoint(model, published(state, SMALL, "microsoft", tmp_path))
    assert torch.equal(model.norms["res5"].weight, state["norms.res5.weight"])
    assert torch.equal(model.norms["res5"].bias, state["norms.res5.bias"])
    assert torch.equal(model.norms["res4"].weight, torch.ones(128))


def test_the_final_norm_is_not_new(state, tmp_path):
    def drop(tensors: dict) -> None:
        del tensors["norm.weight"], tensors["norm.bias"]

    path = changed(state, drop, tmp_path)
    refused(small_classifier(), path, "missing: backbone.norms.res5.weight, backbone.norms.res5.b")


def test_half_an_output_norm_is_not_new(tmp_path):
    model = randomize(small_backbone(), seed=0)
    content = {k: v for k, v in model.state_dict().items() if k != "norms.res2.weight"}
    path = write({"model": content}, tmp_path / "x.pth")
    refused(small_backbone(pretrained_window_sizes=4), path, "missing: norms.res2.weight")


def test_the_position_bias_of_a_used_model_follows_its_new_weights(state, tmp_path):
    path = published(state, SMALL, "microsoft", tmp_path)
    fresh = small_classifier().eval()
    load_checkpoint(fresh, path)
    used = small_classifier(pretrained_window_sizes=None).eval()  # assumed: its window
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        used(images)
        load_checkpoint(used, path)
        assert torch.equal(used(images), fresh(images))


# --- tensors around the backbone -------------------------------------------------------------


class Net(nn.Module):
    """A user's model whose parts are named as a classifier's."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.backbone = small_backbone(pretrained_window_sizes=4)
        self.decoder = nn.Linear(4, 4)
        self.head = head


@pytest.mark.parametrize(
    ("there", "here"),
    [
        (lambda net: net, lambda net: net),
        (nn.DataParallel, lambda net: net),
        (lambda net: net, nn.DataParallel),
        (nn.Sequential, lambda net: net),
        (lambda net: net, lambda net: nn.Sequential(nn.Sequential(net))),
    ],
)
@pytest.mark.parametrize("head", [nn.Linear(4, 5), nn.Sequential(nn.Linear(4, 5))])
def test_models_around_a_backbone_load_their_own_files_completely(head, there, here, tmp_path):
    first, second = randomize(Net(head), seed=0), Net(copy.deepcopy(head))
    path = write(there(first).state_dict(), tmp_path / "x.pth")
    assert load_checkpoint(here(second), path).complete
    assert_equal(second.state_dict(), first.state_dict())


def test_tensors_around_another_publishers_backbone_are_not_loaded(state, tmp_path):
    content = PUBLISHERS["simmim"](state, SMALL)
    net = nn.Module()
    net.encoder, net.decoder = small_classifier().backbone, nn.Sequential(nn.Conv2d(256, 3072, 1))
    before = net.decoder[0].weight.clone()
    report = load_checkpoint(net, write(content, tmp_path / "x.pth"))
    assert torch.equal(net.decoder[0].weight, before)
    assert "not part of the model (decoder." in str(report)


def test_layers_of_another_shape_keep_all_initial_values(tmp_path):
    first, second = Net(nn.Linear(4, 5)), Net(nn.Linear(3, 5))  # the same bias
    before = second.head.bias.clone()
    report = load_checkpoint(second, write(first.state_dict(), tmp_path / "x.pth"))
    assert torch.equal(second.head.bias, before)
    assert len(report.reshaped) == 2 and not report.complete


# --- strange files and models ----------------------------------------------------------------


def test_nan_is_refused_even_where_a_head_is_left(state, tmp_path):
    def poison(tensors: dict) -> None:
        tensors["norm.weight"] = tensors["norm.weight"] * float("nan")

    path = changed(state, poison, tmp_path)
    model = SwinV2Classifier(small_classifier().backbone, 7)
    refused(model, path, "NaN or infinity: backbone.norms.res5.weight", partial=True)


STRANGE: dict[str, Callable[[], Tensor]] = {
    "sparse": lambda: torch.eye(256).to_sparse(),
    "meta": lambda: torch.empty(256, device="meta"),
    "quantized": lambda: torch.quantize_per_tensor(torch.zeros(256), 0.1, 0, torch.qint8),
}


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor.* are deprecated:UserWarning")
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")  # read from the file
def test_tensors_that_are_not_plain_are_named(strange, state, tmp_path):
    tensor = STRANGE[strange]()
    path = changed(state, lambda tensors: tensors.update({"norm.bias": tensor}), tmp_path)
    refused(small_classifier(), path, "changed.pth.*(norm.bias|refused|cannot be read)")


def test_complex_numbers_are_refused(state, tmp_path):
    strange = {"norm.bias": torch.zeros(256, dtype=torch.complex64)}
    path = changed(state, lambda tensors: tensors.update(strange), tmp_path)
    refused(small_classifier(), path, "norms.res5.bias is torch.complex64")


def test_keys_that_are_no_names_are_dropped(state, tmp_path):
    strange = {3: torch.zeros(1), (1, 2): torch.zeros(1), "version": 2}
    path = changed(state, lambda tensors: tensors.update(strange), tmp_path)
    assert "3 x not a tensor with a name" in str(load_checkpoint(small_classifier(), path))


def test_models_that_cannot_be_written_to_are_refused(state, tmp_path):
    path = published(state, SMALL, "microsoft", tmp_path)
    with torch.device("meta"):
        model = small_classifier()
    with pytest.raises(ValueError, match="cannot be written to: backbone"):
        load_checkpoint(model, path)
    with torch.inference_mode():
        model = small_classifier()
    refused(model, path, "cannot be written to: backbone")


@pytest.mark.parametrize(
    ("query", "key"),
    [
        (torch.ones(192, 96), torch.ones(0, 96)),  # together the expected number of rows
        pytest.param(torch.ones(96, 95), torch.ones(96, 96), marks=pytest.mark.slow),
        pytest.param(torch.ones(()), torch.ones(()), marks=pytest.mark.slow),
        pytest.param(torch.ones(96), torch.ones(96), marks=pytest.mark.slow),
        (torch.ones(96, 96), torch.ones(96, 96).long()),
    ],
    ids=["rows", "columns", "numbers", "vectors", "integers"],
)
@pytest.mark.heavy
def test_query_and_key_of_other_kinds_are_not_joined(query, key, tmp_path):
    content = dict(PUBLISHERS["hugging_face"](random_state(TINY), TINY))
    at = "swinv2.encoder.layers.0.blocks.0.attention.self."
    content[f"{at}query.weight"], content[f"{at}key.weight"] = query, key
    path = write(content, tmp_path / "x.pth")
    refused(build_backbone(TINY), path, "missing: layers.0.blocks.0.attn.qkv.weight")


def test_averaged_weights_without_a_model_do_not_hide_the_weights(state, tmp_path):
    content = PUBLISHERS["microsoft"](state, SMALL)
    content["model_ema"] = {"decay": torch.tensor(0.9999)}
    model = small_classifier()
    load_checkpoint(model, write(content, tmp_path / "x.pth"))
    assert_equal(state_of(model), state)


def test_the_unprefixed_of_two_backbones_can_be_chosen(state, tmp_path):
    content = PUBLISHERS["microsoft"](state, SMALL)["model"]
    content |= {f"teacher.{key}": value + 1 for key, value in content.items()}
    model = small_classifier()
    load_checkpoint(model, write(dict(content), tmp_path / "x.pth"), prefix="")
    assert_equal(state_of(model), state)


def test_a_stray_block_is_unexpected_and_builds_nothing(state, tmp_path):
    stray = {"layers.1.blocks.99999.norm1.weight": torch.ones(64)}
    path = changed(state, lambda tensors: tensors.update(stray), tmp_path)
    refused(small_classifier(), path, "unexpected tensors: layers.1.blocks.99999.norm1.weight")
    assert model_for(read_checkpoint(path)).backbone.layers[1].blocks[2:]  # three, not 100000


def test_the_final_norm_of_three_stages_is_that_of_the_third(tmp_path):
    def three(**options) -> SwinV2:
        return SwinV2(16, (1, 1, 1), num_heads=(1, 2, 4), window_size=4, **options)

    first = randomize(three(out_features=("res4",)), seed=0)
    save_checkpoint(first, tmp_path / "x.pth", "timm")
    second = three(out_features=("res2", "res4"))
    report = load_checkpoint(second, tmp_path / "x.pth")
    assert report.new == ["norms.res2.weight", "norms.res2.bias"]
    assert torch.equal(second.norms["res4"].weight, first.norms["res4"].weight)


def test_weights_for_other_channels_are_refused_with_both_numbers(tmp_path):
    path = write({"model": small_backbone(in_channels=3).state_dict()}, tmp_path / "rgb.pth")
    words = r"for images of 3 channels or bands, the model is for 9 \(in_channels, MODEL.PIXEL_MEAN"
    refused(small_backbone(in_channels=9), path, words)
