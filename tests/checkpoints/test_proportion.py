"""Values out of all proportion are named, and nothing that training or initialization gives is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoint_files import (
    SMALL,
    TINY,
    published,
    random_state,
    small_backbone,
    small_classifier,
    state_of,
    write,
)
from oracle import randomize
from publishers import PUBLISHERS, classifier, native_state, publishers_of
from torch import Tensor, nn

from swinv2_backbone import VARIANTS, load_checkpoint, save_checkpoint
from swinv2_backbone.build import model_for
from swinv2_backbone.checkpoints.load import load_into
from swinv2_backbone.checkpoints.proportion import unusual_values
from swinv2_backbone.checkpoints.read import read_checkpoint

WEIGHT = "layers.1.blocks.0.mlp.fc1.weight"


@pytest.fixture
def state() -> dict[str, Tensor]:
    """Weights after training, as far as the limits are concerned."""
    return randomize(small_backbone(), 0).state_dict()


def of(state: dict[str, Tensor], name: str, change: Callable[[Tensor], object]) -> list[str]:
    """Return what is unusual in a changed tensor, which is flat for the change."""
    tensor = state[name].clone()
    change(tensor.view(-1))
    return unusual_values(state | {name: tensor})


def put(place: int | slice, value: float) -> Callable[[Tensor], object]:
    def change(flat: Tensor) -> None:
        flat[place] = value

    return change


# ---- What is named


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_flipped_bit_of_the_exponent_is_named_with_its_value(dtype, sign):
    weight = 0.02 * torch.randn(96, 130, generator=torch.Generator().manual_seed(0))
    weight[40, 7] = sign * 0.02
    weight = weight.to(dtype)
    assert unusual_values({"fc1.weight": weight}) == []
    bits = {8: torch.int64, 4: torch.int32, 2: torch.int16}[dtype.itemsize]
    weight.view(bits)[40, 7] ^= 1 << (8 * dtype.itemsize - 2)
    value = f"{float(weight[40, 7]):.3g}"
    (text,) = unusual_values({"fc1.weight": weight})
    assert text == f"fc1.weight has the value {value}, where 0.051 is usual"


@pytest.mark.parametrize("place", [0, 63, 64, -1, -2])
def test_an_outlier_is_found_wherever_it_is(place, state):
    assert of(state, WEIGHT, put(place, 5000.0)) == [
        f"{WEIGHT} has the value 5e+03, where 0.31 is usual"
    ]
    assert of(state, "layers.1.blocks.0.mlp.fc1.bias", put(place, 500.0))


@pytest.mark.parametrize("place", [0, 2111, 2112, 2144])  # 2112: after the last whole group
def test_an_outlier_is_found_in_a_size_of_no_whole_groups(place):
    weight = torch.full((33, 65), 0.02)
    weight.view(-1)[place] = 50
    assert unusual_values({"a": weight}) == ["a has the value 50, where 0.02 is usual"]


def test_several_outliers_are_counted(state):
    (text,) = of(state, WEIGHT, put(slice(0, 1000, 100), 1e30))
    assert text.startswith(f"{WEIGHT} has the value 1e+30 and 9 more")


@pytest.mark.parametrize(
    ("name", "usual", "unusual"),
    [
        ("layers.0.blocks.1.attn.logit_scale", (2.3, 4.7, -3.0, 9.5), (10.5, 37.0, -40.0)),
        ("layers.1.blocks.1.norm1.weight", (0.0, 1e-3, 30.0, -20.0), (120.0, -512.0, 1e5)),
        ("norms.res3.weight", (0.0, 1.0, 30.0), (120.0, 1e5)),
        ("patch_embed.norm.weight", (0.0, 1.0, 30.0), (120.0, 1e5)),
        ("layers.1.blocks.1.norm1.bias", (0.0, 20.0), (1e5,)),
    ],
)
def test_logit_scales_and_norms_have_limits_of_their_own(name, usual, unusual, state):
    for value in usual:
        assert of(state, name, put(0, value)) == []
    for value in unusual:
        assert of(state, name, put(0, value))[0].startswith(f"{name} has the value {value:.3g}")


@pytest.mark.parametrize("start", [1, 65, 100, 3333])
@pytest.mark.parametrize("length", [128, 1000, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_hole_is_named_with_its_length(start, length, dtype, state):
    half = {name: value.to(dtype) for name, value in state.items()}
    assert of(half, WEIGHT, put(slice(start, start + length), 0.0)) == [
        f"{WEIGHT} has {length:,} zeros in a row, and hardly any elsewhere"
    ]


def test_a_hole_over_the_end_of_a_tensor_is_named(state):
    (text,) = of(state, WEIGHT, put(slice(-700, None), 0.0))
    assert "700 zeros in a row" in text


def test_a_warning_names_the_file_the_tensors_and_the_remedy(state, tmp_path, caplog):
    state[WEIGHT].view(-1)[5] = 1e20
    state["norms.res3.weight"][0] = 1e6
    file = write(state, tmp_path / "mine.pth")
    model = small_backbone(pretrained_window_sizes=4)
    report = load_checkpoint(model, file)
    (warning,) = [record.message for record in caplog.records if record.levelno > logging.INFO]
    assert warning.startswith(f"{file} may be damaged, or its training diverged: {WEIGHT} has the")
    assert "norms.res3.weight has the value 1e+06" in warning
    assert "SOURCE#sha256=HEX, or write HEX into mine.pth.sha256 beside it" in warning
    assert len(report.unusual) == 2 and f"unusual            {WEIGHT} has the value" in str(report)
    assert model.state_dict()[WEIGHT].view(-1)[5] == 1e20  # it is loaded all the same


def test_tensors_that_are_not_loaded_are_not_looked_at(tmp_path):
    content = PUBLISHERS["microsoft"](native_state(SMALL, num_classes=10), SMALL)
    content["model"]["head.weight"] = 1e20 * torch.ones(10, 256)
    file = write(content, tmp_path / "mine.pth")
    assert not load_checkpoint(small_classifier().backbone, file).unusual
    assert load_checkpoint(small_classifier(), file).unusual


def test_a_detector_is_looked_at_but_not_its_buffers(tmp_path):
    """Variances of batch normalization have any size."""
    model = nn.Sequential(small_backbone(), nn.BatchNorm2d(4), nn.Linear(4, 4))
    model[1].running_var.fill_(1e9)
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    empty = nn.Sequential(small_backbone(pretrained_window_sizes=4), nn.BatchNorm2d(4))
    empty.append(nn.Linear(4, 4))
    assert not load_checkpoint(empty, tmp_path / "mine.pth").unusual
    with torch.no_grad():
        model[2].weight[0, 0] = 1e9
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    (text,) = load_checkpoint(empty, tmp_path / "mine.pth").unusual
    assert text.startswith("2.weight has the value 1e+09") and empty[1].running_var[0] == 1e9


def test_a_resumed_training_is_not_looked_at(state, tmp_path):
    """Its file has checksums, and its values are the run's own."""
    state[WEIGHT].view(-1)[5] = 1e20
    checkpoint = read_checkpoint(write(state, tmp_path / "mine.pth"))
    model = small_backbone(pretrained_window_sizes=4)
    assert load_into(model, checkpoint).unusual
    assert not load_into(model, checkpoint, complete=True).unusual


# ---- What is not


def silent(model: nn.Module, source: Path, caplog, **options) -> None:
    """Check that a file loads without a warning about its values."""
    report = load_checkpoint(model, source, **options)
    assert report.unusual == [] and "may be damaged" not in caplog.text


@pytest.mark.parametrize("name", VARIANTS)
def test_no_initialization_of_a_variant_is_unusual(name):
    variant, size = VARIANTS[name], {}
    if variant.embed_dim > 128:  # the windows and norms of the variant, in a smaller model
        size = {"embed_dim": 64, "depths": (2, 2, 6, 2), "num_heads": (2, 4, 8, 16)}
    assert unusual_values(classifier(replace(variant, **size), 1000).state_dict()) == []


@pytest.mark.parametrize("publisher", publishers_of(TINY))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_no_file_of_a_publisher_is_unusual(publisher, dtype, tmp_path, caplog):
    state = {key: value.to(dtype) for key, value in random_state(TINY).items()}
    file = published(state, TINY, publisher, tmp_path)
    checkpoint = read_checkpoint(file)
    model = model_for(checkpoint, pretrained_window_sizes=8)
    silent(model, file, caplog)


@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("native", "mine.pth"),
        ("native", "mine.safetensors"),
        ("detectron2", "mine.pth"),
        ("timm", "mine.safetensors"),
    ],
)
def test_no_file_of_ours_is_unusual(to, name, tmp_path, caplog):
    file = tmp_path / name
    save_checkpoint(small_classifier(), file, to)
    silent(small_classifier(), file, caplog, partial=True)


@pytest.mark.parametrize("rule", ["repeat", "mean", "zero"])
def test_new_channels_of_zeros_are_not_holes(rule, tmp_path, caplog):
    content = PUBLISHERS["microsoft"](state_of(small_classifier()), SMALL)
    file = write(content, tmp_path / "mine.pth")
    silent(small_classifier(in_channels=13), file, caplog, stem=rule)


def test_weights_of_a_short_training_are_not_unusual():
    """Norms start from zero, and AdamW moves each of their values by the learning rate."""
    torch.manual_seed(0)
    model = small_classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    for step in range(12):
        images = torch.randn(2, 3, 64, 64) + step % 10
        nn.functional.cross_entropy(model(images), torch.tensor([step % 10] * 2)).backward()
        optimizer.step()
        optimizer.zero_grad()
        assert unusual_values(model.state_dict()) == [], step


def rows_of(share: float, size: int = 256) -> Tensor:
    """Return a matrix with a share of zero rows, as pruning leaves it."""
    weight = 0.02 * torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    weight[: int(share * size)] = 0
    return weight


def decayed() -> Tensor:
    weight = rows_of(0)
    weight[::2] *= 1e-12
    return weight


def sparse(share: float) -> Tensor:
    """Return a matrix of whose values, drawn at random, a share is zero."""
    kept = torch.rand(256, 256, generator=torch.Generator().manual_seed(1)) > share
    return rows_of(0) * kept


def heavy_tails() -> Tensor:
    """Return outliers of 300 times the usual values; in trained networks some have 200 times."""
    weight = rows_of(0)
    weight[3, :20] = 15
    return weight


@pytest.mark.parametrize(
    "tensor",
    {
        "zero": torch.zeros(256, 256),
        "equal": torch.full((256, 256), 7.0),
        "pruned rows": rows_of(0.3),
        "pruned columns": rows_of(0.5).T.contiguous(),
        "half of the values pruned": sparse(0.5),
        "88 % of the values pruned": sparse(0.88),
        "a few values": sparse(0.9999),
        "mostly zeros": rows_of(0.99),
        "one row": rows_of(0.997),
        "shrunk by weight decay": decayed(),
        "heavy tails": heavy_tails(),
        "kernels of new channels": torch.cat([torch.ones(4, 3, 4, 4), torch.zeros(4, 10, 4, 4)], 1),
        "one bias among tiny ones": torch.cat([torch.full((500,), 1e-4), torch.tensor([5.0])]),
        "bias of torchvision, whose k is zero": torch.cat([torch.ones(96), torch.zeros(192)]),
        "one value": torch.tensor([3.0]),
        "empty": torch.zeros(0, 3),
        "integers": torch.arange(10**6).view(1000, 1000),
    }.items(),
    ids=lambda case: case[0],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_of_training_are_not_unusual(tensor, dtype):
    value = tensor[1].to(dtype) if tensor[1].is_floating_point() else tensor[1]
    assert unusual_values({"layers.0.weight": value}) == []
