"""Which kernel computes a block: by device, by what is asked for, never past what users add."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from models import backbone, largest_difference, oracle_features, pictures, total
from torch import Tensor, nn

from swinv2_backbone import SwinV2
from swinv2_backbone.block import SwinV2Block
from swinv2_backbone.kernels import choose as choice
from swinv2_backbone.kernels.attend import BLOCKS
from swinv2_backbone.kernels.choose import VARIABLE, choose
from swinv2_backbone.kernels.cpu.block import block_in_strips
from swinv2_backbone.windows import Partition

WINDOW_8 = Partition(((9, 9),), (8, 8), False)


def block(head_dim: int = 32) -> SwinV2Block:
    return SwinV2Block(head_dim, 1, pretrained_window=(2, 2))


def on(device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Something that says it is on a device, whether the device is there or not."""

    class Somewhere:
        pass

    tokens = Somewhere()
    tokens.device, tokens.dtype = torch.device(device), dtype
    return tokens


@pytest.mark.parametrize("kernel", ["reference", "tiles"])
def test_every_kernel_equals_the_oracle(kernel):
    model, images = backbone(kernel=kernel).double(), pictures(2, 3, 45, 70).double()
    expected = oracle_features(model, images, window_sizes=(4, 4))
    assert largest_difference(model(images), expected) < 1e-11


@pytest.mark.parametrize(
    "device, changes, kernel",
    [
        ("cpu", {}, "tiles"),
        ("cpu", {"triton": False, "head_dim": 7, "dtype": torch.float64}, "tiles"),
        ("cuda", {}, "triton"),
        ("cuda", {"dtype": torch.bfloat16}, "triton"),
        ("cuda", {"triton": False}, "reference"),
        ("cuda", {"new": False}, "reference"),
        ("cuda", {"head_dim": 16}, "reference"),
        ("cuda", {"dtype": torch.float64}, "reference"),
        ("cuda", {"window": (8, 80)}, "reference"),
        ("mps", {}, "reference"),
    ],
)
def test_auto_is_the_fastest_that_can_be_had(monkeypatch, device, changes, kernel):
    given = {"triton": True, "new": True, "head_dim": 32, "dtype": torch.float32, "window": (8, 8)}
    given |= changes
    monkeypatch.setattr(choice, "has_triton", lambda: given["triton"])
    monkeypatch.setattr(choice, "_is_new", lambda device: given["new"])
    partition = WINDOW_8._replace(window=given["window"])
    tokens = on(device, given["dtype"])
    assert choose("auto", tokens, partition, block(given["head_dim"])) == kernel


@pytest.mark.parametrize(
    "device, changes, words",
    [
        ("cpu", {}, "needs a GPU, the model is on cpu"),
        ("cuda", {"head_dim": 16}, "is for heads of 32 channels, got 16"),
        ("cuda", {"dtype": torch.float64}, "is for float32, .* got torch.float64"),
        ("cuda", {"window": (8, 80)}, "is for windows up to 64 tokens wide, got 80"),
        ("cuda", {"triton": False}, "needs Triton and a C compiler"),
    ],
)
def test_a_kernel_that_cannot_be_had_is_refused(monkeypatch, device, changes, words):
    given = {"triton": True, "head_dim": 32, "dtype": torch.float32, "window": (8, 8)} | changes
    monkeypatch.setattr(choice, "has_triton", lambda: given["triton"])
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    partition = WINDOW_8._replace(window=given["window"])
    with pytest.raises(ValueError, match=f"kernel 'triton' {words}: use kernel='auto'"):
        choose("triton", on(device, given["dtype"]), partition, block(given["head_dim"]))


def test_strips_are_refused_where_there_is_no_cpu():
    with pytest.raises(ValueError, match="kernel 'tiles' is for CPUs, the model is on cuda"):
        choose("tiles", on("cuda"), WINDOW_8, block())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "copied", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_the_blocks_of_a_model_on_a_cpu_are_computed_in_strips(monkeypatch, training, copied):
    model, seen = copied(backbone(drop_path_rate=0.1)).train(training), []

    def counted(*args, **options):
        seen.append(args[0])
        return block_in_strips(*args, **options)

    monkeypatch.setitem(BLOCKS, "tiles", counted)
    model(pictures(1, 3, 33, 40))
    assert seen == [block for stage in model.layers for block in stage.blocks]


def test_an_unknown_kernel_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="kernel must be one of auto, .* got 'fast'"):
        backbone(kernel="fast")
    monkeypatch.setenv(VARIABLE, "slow")
    with pytest.raises(ValueError, match=f"environment variable {VARIABLE} .*got 'slow'"):
        backbone()


def kernels_of(model: SwinV2) -> set[str]:
    return {block.kernel for stage in model.layers for block in stage.blocks}


def test_the_environment_variable_stands_above_the_argument(monkeypatch):
    assert kernels_of(backbone(kernel="tiles")) == {"tiles"}
    monkeypatch.setenv(VARIABLE, "reference")
    assert kernels_of(backbone(kernel="tiles")) == {"reference"}


def test_hooks_inside_a_block_are_called():
    model, seen = backbone().eval(), []
    block = model.layers[0].blocks[0]
    handle = block.mlp.fc1.register_forward_hook(lambda *_: seen.append("fc1"))
    images = pictures(1, 3, 33, 40)
    with torch.no_grad():
        hooked = model(images)
        assert seen == ["fc1"]
        handle.remove()
        assert largest_difference(model(images), hooked) < 1e-4
    assert seen == ["fc1"]


class Doubled(nn.Linear):
    """A layer that somebody put in the place of ours, as adapters and quantisation do."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("kernel", ["reference", "tiles"])
@pytest.mark.parametrize("part, name", [("attn", "qkv"), ("attn", "proj"), ("mlp", "fc1")])
def test_a_replaced_layer_is_used(part, name, kernel):
    images, results = pictures(1, 3, 33, 40), []
    for replaced in (False, True):
        model = backbone(kernel=kernel).eval()
        owner = getattr(model.layers[1].blocks[0], part)
        if replaced:
            layer = getattr(owner, name)
            layer.__class__ = Doubled
        else:
            for parameter in getattr(owner, name).parameters():
                parameter.data.mul_(2)
        with torch.no_grad():
            results.append(model(images))
    assert largest_difference(*results) < 1e-4


def weight_norm(model: SwinV2) -> None:
    nn.utils.parametrizations.weight_norm(model.layers[0].blocks[0].mlp.fc2)


def another_epsilon(model: SwinV2) -> None:
    model.layers[0].blocks[0].norm1.eps = 0.1


def no_norm(model: SwinV2) -> None:
    model.layers[0].blocks[0].norm2 = nn.Identity()


def no_weights(model: SwinV2) -> None:
    model.layers[0].blocks[0].norm2 = nn.LayerNorm(16, elementwise_affine=False)


def narrower_mlp(model: SwinV2) -> None:
    mlp = model.layers[0].blocks[0].mlp
    for layer, shape in ((mlp.fc1, (24, 16)), (mlp.fc2, (16, 24))):
        layer.weight = nn.Parameter(layer.weight[: shape[0], : shape[1]].clone())
    mlp.fc1.bias = nn.Parameter(mlp.fc1.bias[:24].clone())


def forward_of_its_own(model: SwinV2) -> None:
    layer = model.layers[0].blocks[0].mlp.fc2
    layer.forward = lambda x: 3 * nn.functional.linear(x, layer.weight, layer.bias)


@pytest.mark.parametrize(
    "change", [weight_norm, another_epsilon, no_norm, no_weights, narrower_mlp, forward_of_its_own]
)
def test_a_changed_layer_counts_in_every_kernel(change):
    images, results = pictures(1, 3, 33, 40), []
    for kernel in ("reference", "tiles"):
        model = backbone(kernel=kernel)
        change(model)
        results.append(model(images))
        total(results[-1]).backward()
    assert largest_difference(*results) < 1e-4


def test_global_hooks_are_called():
    seen, model = [], backbone().eval()
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: seen.append(type(m)))
    try:
        with torch.no_grad():
            model(pictures(1, 3, 33, 40))
    finally:
        handle.remove()
    assert nn.Linear in seen


def test_a_trace_shows_the_operators_of_a_block():
    graph = torch.jit.trace(
        backbone(out_features=("res2",)).eval(),
        pictures(1, 3, 33, 40),
        strict=False,
        check_trace=False,
    ).inlined_graph
    kinds = {node.kind() for node in graph.nodes()}
    assert "aten::softmax" in kinds and not any(kind.startswith("swinv2::") for kind in kinds)
