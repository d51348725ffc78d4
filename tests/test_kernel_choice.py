"""Which kernel computes a block: by device, by what is asked for, never past what users add."""

from __future__ import annotations

import pytest
import torch
from models import backbone, largest_difference, oracle_features, pictures
from torch import Tensor, nn

from swinv2_backbone import SwinV2
from swinv2_backbone.kernels import choice
from swinv2_backbone.kernels.choice import VARIABLE, choose

BLOCK = nn.Module()


def on(device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Something that says it is on a device, whether the device is there or not."""

    class Somewhere:
        pass

    tokens = Somewhere()
    tokens.device, tokens.dtype = torch.device(device), dtype
    return tokens


@pytest.mark.parametrize("kernel", ["reference", "strips"])
def test_every_kernel_equals_the_oracle(kernel):
    model, images = backbone(kernel=kernel).double(), pictures(2, 3, 45, 70).double()
    expected = oracle_features(model, images, window_sizes=(4, 4))
    assert largest_difference(model(images), expected) < 1e-11


@pytest.mark.parametrize(
    "device, triton, head_dim, dtype, kernel",
    [
        ("cpu", True, 32, torch.float32, "strips"),
        ("cpu", False, 7, torch.float64, "strips"),
        ("cuda", True, 32, torch.bfloat16, "triton"),
        ("cuda", False, 32, torch.bfloat16, "reference"),
        ("cuda", True, 16, torch.bfloat16, "reference"),
        ("cuda", True, 32, torch.float64, "reference"),
        ("mps", True, 32, torch.float32, "reference"),
    ],
)
def test_auto_is_the_fastest_that_the_device_has(
    monkeypatch, device, triton, head_dim, dtype, kernel
):
    monkeypatch.setattr(choice, "has_triton", lambda: triton)
    assert choose("auto", on(device, dtype), head_dim, BLOCK) == kernel


def test_a_kernel_that_cannot_be_had_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="32 channels.*got 16 channels.*kernel='auto'"):
        choose("triton", on("cuda"), 16, BLOCK)
    monkeypatch.setattr(choice, "has_triton", lambda: False)
    with pytest.raises(ValueError, match="pip install triton"):
        choose("triton", on("cuda"), 32, BLOCK)


def test_an_unknown_kernel_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="kernel must be one of auto, .* got 'fast'"):
        backbone(kernel="fast")
    monkeypatch.setenv(VARIABLE, "slow")
    with pytest.raises(ValueError, match=f"environment variable {VARIABLE} .*got 'slow'"):
        backbone()


def kernels_of(model: SwinV2) -> set[str]:
    return {block.kernel for stage in model.layers for block in stage.blocks}


def test_the_environment_variable_stands_above_the_argument(monkeypatch):
    assert kernels_of(backbone(kernel="strips")) == {"strips"}
    monkeypatch.setenv(VARIABLE, "reference")
    assert kernels_of(backbone(kernel="strips")) == {"reference"}


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


def test_a_replaced_layer_is_used():
    images, results = pictures(1, 3, 33, 40), []
    for kernel in ("reference", "strips"):
        model = backbone(kernel=kernel).eval()
        block = model.layers[1].blocks[0]
        doubled = Doubled(32, 128)
        doubled.load_state_dict(block.mlp.fc1.state_dict())
        block.mlp.fc1 = doubled
        with torch.no_grad():
            results.append(model(images))
            assert largest_difference(results[-1], backbone(kernel=kernel).eval()(images)) > 0.01
    assert largest_difference(*results) < 1e-4


def test_a_trace_shows_the_operators_of_a_block():
    graph = torch.jit.trace(
        backbone(out_features=("res2",)).eval(),
        pictures(1, 3, 33, 40),
        strict=False,
        check_trace=False,
    ).inlined_graph
    kinds = {node.kind() for node in graph.nodes()}
    assert "aten::softmax" in kinds and not any(kind.startswith("swinv2::") for kind in kinds)
