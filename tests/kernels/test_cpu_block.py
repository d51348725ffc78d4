"""Blocks computed tile by tile: equal to their modules, forward and backward."""

from __future__ import annotations

import subprocess
import sys
from math import log, prod

import pytest
import torch
import torch._dynamo.testing
from models import TWO_STAGES, backbone, gradients, largest_difference, pictures, total
from oracle import randomize
from torch import Tensor, nn
from torch.autograd import gradcheck

from swinv2_backbone import precision
from swinv2_backbone.block import SwinV2Block
from swinv2_backbone.kernels.cpu import attention as tile_attention
from swinv2_backbone.kernels.cpu import block as tiled_block
from swinv2_backbone.kernels.cpu import linear
from swinv2_backbone.kernels.cpu.linear import FEWEST_TOKENS, PreparedLinear
from swinv2_backbone.kernels.parameters import parameter_shapes
from swinv2_backbone.windows import Partition

PARTITIONS = [
    Partition(((9, 13),), (4, 4), False),
    Partition(((9, 13),), (4, 4), True),
    Partition(((20, 17), (20, 17), (5, 3)), (7, 3), True),
    Partition(((16, 16), (16, 16)), (16, 16), True),  # fits in one window
    Partition(((31, 33),), (16, 16), True),  # more tokens than SMALL
    Partition(((1, 1), (1, 7)), (8, 8), True),
    Partition(((5, 13), (9, 7), (4, 11)), (7, 7), True, square_small_maps=True),
]
# Bytes of a tile, bytes of its logits, and the fewest tokens for which weights are reordered.
BUDGETS = {"one tile": (2**24, 2**21, 10**6), "many tiles": (2**12, 2**8, 1)}


@pytest.fixture(params=BUDGETS)
def budgets(request, monkeypatch) -> None:
    """Compute everything at once, or one row of windows and one query at a time."""
    hidden, logits, fewest_tokens = BUDGETS[request.param]
    monkeypatch.setattr(linear, "FEWEST_TOKENS", fewest_tokens)
    monkeypatch.setattr(tiled_block, "INFERENCE_BYTES", hidden)
    monkeypatch.setattr(tiled_block, "TRAINING_BYTES", hidden)
    monkeypatch.setattr(tile_attention, "LOGITS_BYTES", logits)


def random_block(
    kernel: str = "tiles", dim: int = 32, heads: int = 2, window=(4, 4), **options
) -> SwinV2Block:
    block = SwinV2Block(dim, heads, pretrained_window=window, kernel=kernel, **options)
    return randomize(nn.ModuleDict({"block": block}), 0)["block"]


def tokens_for(partition: Partition, channels: int = 32) -> Tensor:
    return pictures(sum(map(prod, partition.sizes)), channels)


def outcome(block: SwinV2Block, x: Tensor, partition: Partition) -> dict[str, Tensor]:
    """Return the output of a block and the gradients of its input and parameters."""
    x = x.clone().requires_grad_()
    torch.manual_seed(0)  # for drop path
    out = block(x, partition)
    out.backward(pictures(*x.shape, seed=2).to(out.dtype))
    return {"out": out.detach(), "x": x.grad, **gradients(block)}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("partition", PARTITIONS)
def test_a_block_in_tiles_equals_its_modules(partition, checkpointing, budgets):
    x = tokens_for(partition).double()
    options = {"drop_path": 0.5, "extra_norm": True, "activation_checkpointing": checkpointing}
    expected = outcome(random_block("reference", **options).double(), x, partition)
    actual = outcome(random_block(**options).double(), x, partition)
    assert largest_difference(actual, expected) < 1e-11


@pytest.mark.parametrize("partition", PARTITIONS)
def test_tiles_are_as_exact_in_float32_as_modules(partition, budgets):
    x = tokens_for(partition)
    exact = outcome(random_block("reference").double(), x.double(), partition)
    by_modules = largest_difference(outcome(random_block("reference"), x, partition), exact)
    assert largest_difference(outcome(random_block(), x, partition), exact) < 2 * by_modules + 1e-6


@pytest.mark.parametrize("amd", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("partition", PARTITIONS)
def test_native_kernels_are_as_exact_in_float32_as_modules(
    partition, checkpointing, amd, budgets, monkeypatch
):
    """Heads of 32 channels, which they need; without a compiler, by PyTorch's operators."""
    monkeypatch.setattr(
        linear, "_is_amd_with_avx512", lambda: amd
    )  # gradients by oneDNN, else by BLAS
    x = tokens_for(partition, 64)
    options = {"dim": 64, "drop_path": 0.5, "activation_checkpointing": checkpointing}
    exact = outcome(random_block("reference", **options).double(), x.double(), partition)
    by_modules = largest_difference(
        outcome(random_block("reference", **options), x, partition), exact
    )
    assert largest_difference(outcome(random_block(**options), x, partition), exact) < (
        2 * by_modules + 1e-6
    )


def test_bfloat16_is_computed_in_float32_where_that_is_faster(monkeypatch, budgets):
    partition, errors = PARTITIONS[2], []
    x = tokens_for(partition, 64)
    exact = outcome(random_block("reference", dim=64).double(), x.double(), partition)
    for supported in (True, False):
        monkeypatch.setattr(precision, "supports_bf16", lambda own=supported: own)
        monkeypatch.setattr(linear, "supports_bf16", lambda own=supported: own)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            actual = outcome(random_block(dim=64), x.bfloat16(), partition)
        assert actual["out"].dtype == torch.bfloat16
        errors.append(largest_difference(actual, exact))
    assert precision.compute_dtype(torch.bfloat16) == torch.float32
    assert errors[1] < errors[0]  # the tokens and gradients are still rounded


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tiles_are_as_exact_in_half_precision_as_modules(dtype, autocast, budgets):
    partition, errors = PARTITIONS[2], []
    x = tokens_for(partition)
    exact = outcome(random_block("reference").double(), x.double(), partition)
    for kernel in ("reference", "tiles"):
        block = random_block(kernel)
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            actual = outcome(block if autocast else block.to(dtype), x.to(dtype), partition)
        assert actual["out"].dtype == dtype
        errors.append(largest_difference(actual, exact))
    assert errors[1] < 1.5 * errors[0]


def test_gradients_of_a_block_in_tiles_pass_gradcheck(budgets):
    partition = Partition(((3, 5), (2, 1)), (2, 2), True)
    block = random_block(dim=4, heads=2, window=(2, 2)).double().train()
    nn.init.constant_(block.attn.logit_scale, log(3))  # off the clamp's kink
    x = tokens_for(partition, 4).double().requires_grad_()
    weights = [p for name, p in block.named_parameters() if "cpb" not in name]
    assert gradcheck(lambda x, *_: block(x, partition), (x, *weights), fast_mode=True)


@pytest.mark.parametrize("logit_scale", [-200.0, -20.0, log(100), 1e4])
def test_extreme_scales_and_tokens_of_zero_are_finite(logit_scale, budgets):
    partition, block = PARTITIONS[1], random_block()
    nn.init.constant_(block.attn.logit_scale, logit_scale)
    nn.init.zeros_(block.attn.q_bias)
    x = tokens_for(partition)
    x[::3] = 0
    assert all(value.isfinite().all() for value in outcome(block, x, partition).values())


def test_a_new_layer_is_used_at_the_next_forward():
    partition, block = PARTITIONS[0], random_block().eval()
    x = tokens_for(partition)
    with torch.no_grad():
        before = block(x, partition)
        block.mlp.fc1.weight.mul_(2)
        assert (block(x, partition) - before).abs().max() > 0.01


def test_inputs_are_left_as_they_were():
    partition, block = PARTITIONS[1], random_block()
    x = tokens_for(partition)
    given = x.clone()
    with torch.no_grad():
        block(x, partition)
    outcome(block, x, partition)
    assert torch.equal(x, given)


def test_a_second_derivative_is_refused():
    partition, block = PARTITIONS[0], random_block()
    x = tokens_for(partition).requires_grad_()
    (grad,) = torch.autograd.grad(block(x, partition).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="do not support double backward.*kernel='reference'"):
        grad.square().sum().backward()


@pytest.mark.parametrize("out, into", [(96, 32), (32, 96)])
@pytest.mark.parametrize("tokens", [7, FEWEST_TOKENS])
@pytest.mark.parametrize("transposed", [False, True])
def test_prepared_linear_layers_equal_plain_ones(out, into, tokens, transposed):
    weight, bias = pictures(out, into, seed=1), pictures(out, seed=2)
    weight = weight.T.contiguous().T if transposed else weight
    x, prepared = pictures(tokens // 3, into), PreparedLinear(weight, bias, tokens)
    assert prepared.by_onednn == linear._ONEDNN
    assert (prepared._reordered is weight) == (tokens == 7)
    expected = nn.functional.linear(x.double(), weight.double(), bias.double())
    gelu = nn.functional.gelu(expected)
    torch.testing.assert_close(prepared(x).double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(prepared.gelu(x).double(), gelu, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("amd", [False, True])
@pytest.mark.parametrize("tokens", [7, FEWEST_TOKENS])
def test_gradients_of_inputs_are_products_with_the_weight(tokens, amd, monkeypatch):
    monkeypatch.setattr(linear, "_is_amd_with_avx512", lambda: amd)
    weight, grad, total = pictures(24, 16), pictures(7, 24, seed=1), pictures(7, 16, seed=2)
    layer = linear.input_gradient(weight, tokens)
    assert layer.by_onednn == (linear._ONEDNN and amd)
    expected = grad.double() @ weight.double()
    torch.testing.assert_close(layer(grad).double(), expected, rtol=1e-5, atol=1e-5)
    expected += total
    torch.testing.assert_close(layer.add_to(total, grad).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 7, 300])
@pytest.mark.parametrize(
    "dtype, tolerance",
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)],
)
def test_gradients_of_linear_layers_are_those_of_autograd(tokens, dtype, tolerance):
    grad, x = pictures(tokens, 24).to(dtype), pictures(tokens, 16, seed=1).to(dtype)
    layer = nn.Linear(16, 24).double()
    layer(x.double()).backward(grad.double())
    expected = layer.weight.grad, layer.bias.grad
    for actual, exact in zip(linear.linear_gradients(grad, x), expected):
        torch.testing.assert_close(actual.double(), exact, rtol=tolerance, atol=tolerance * 10)


def test_onednn_is_not_used_where_it_is_turned_off():
    weight, x = pictures(8, 8), pictures(4, 8)
    with torch.backends.mkldnn.flags(enabled=False), torch.profiler.profile() as profile:
        prepared = PreparedLinear(weight, None, 10**6)
        assert not prepared.by_onednn
        prepared(x), prepared.gelu(x), linear.linear_gradients(x, x)
    assert not [event.key for event in profile.key_averages() if "mkldnn" in event.key]


@pytest.mark.heavy
def test_the_operator_keeps_the_rules_of_operators():
    channels, heads = 8, 2
    shapes = parameter_shapes(channels, heads).values()
    parameters = [pictures(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    x = pictures(3 * 5 + 2, channels).requires_grad_()
    table = pictures(heads, 3 * 3).requires_grad_()
    for drop_path in ([], [pictures(17, 1), pictures(17, 1, seed=1)]):
        for save_activations in (False, True):
            geometry = [3, 5, 1, 2], [2, 2], True, False
            torch.library.opcheck(
                torch.ops.swinv2.tiled_block.default,
                (x, parameters, table, drop_path, *geometry, save_activations),
            )


@pytest.mark.parametrize(
    "training, options",
    [
        (False, {}),
        pytest.param(True, {}, marks=pytest.mark.slow),
        pytest.param(True, {"activation_checkpointing": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.heavy
def test_the_compiled_backbone_is_one_graph_for_all_sizes(training, options):
    model = backbone(TWO_STAGES, depths=(1, 2), **options).train(training)
    graphs = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=graphs, fullgraph=True, dynamic=True)
    counts = []
    for size in ((64, 96), (70, 101), (33, 40)):
        images = pictures(2, 3, *size)
        with torch.set_grad_enabled(training):
            actual, expected = compiled(images), model(images)
        assert largest_difference(actual, expected) < 1e-5
        if training:
            found = []
            for features in (actual, expected):
                model.zero_grad()
                total(features).backward()
                found.append(gradients(model))
            assert largest_difference(*found) < 1e-4
        counts.append(graphs.frame_count)
    assert len(set(counts)) == 1


@pytest.mark.slow
def test_drop_path_and_sizes_of_images_are_part_of_the_graph():
    model = backbone(drop_path_rate=0.5).train()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    images, results = pictures(2, 3, 45, 40), []
    for run in (model, compiled):
        torch.manual_seed(0)
        features = run(images, [(45, 40), (20, 33)])
        model.zero_grad()
        total(features).backward()
        results.append((features, gradients(model)))
    assert largest_difference(results[1][0], results[0][0]) < 1e-5
    assert largest_difference(results[1][1], results[0][1]) < 1e-4


LARGE = """
import re, resource, sys, torch
from swinv2_backbone import build_backbone
torch.manual_seed(0)
model = build_backbone(
    "swinv2_large_window12_192", window_size=int(sys.argv[1]), activation_checkpointing=True
).train()
features = model(torch.randn(1, 3, 1536, 1536))
sum(feature.square().mean() for feature in features.values()).backward()
assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)  # GiB
"""


@pytest.mark.slow
@pytest.mark.parametrize("window", [32, 48])
def test_the_large_model_trains_at_1536_pixels_and_large_windows_in_8_gib(window):
    command = [sys.executable, "-c", LARGE, str(window)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 8  # weights, gradients and PyTorch itself included
