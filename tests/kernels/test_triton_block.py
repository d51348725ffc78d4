"""Blocks of fused kernels: equal to their modules, forward and backward.

As in test_triton_attention.py, they run on the GPU, or without one in Triton's interpreter.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from layer_changes import adapter
from models import backbone, differences, gradients, largest_difference, pictures, total
from oracle import randomize
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

pytest.importorskip("triton")

from triton_interpreter import (  # noqa: E402
    DEVICE,
    bfloat16_as_on_a_gpu,  # noqa: F401
    interpreter_without_repetition,  # noqa: F401
    kernels_checked_before,  # noqa: F401
)

from swinv2_backbone.block import SwinV2Block  # noqa: E402
from swinv2_backbone.kernels import self_check  # noqa: E402
from swinv2_backbone.kernels.parameters import parameter_shapes  # noqa: E402
from swinv2_backbone.kernels.triton import block as triton_block  # noqa: E402
from swinv2_backbone.kernels.triton import launch as triton_launch  # noqa: E402
from swinv2_backbone.kernels.triton import rows as triton_rows  # noqa: E402
from swinv2_backbone.layers import DropPath  # noqa: E402
from swinv2_backbone.packing import Size  # noqa: E402
from swinv2_backbone.position_bias import HIDDEN, PositionBias  # noqa: E402
from swinv2_backbone.windows import Partition  # noqa: E402

HALF = [torch.float16, torch.bfloat16]
CHANNELS, HEADS = 96, 3  # not a power of two
PARTITIONS = [
    Partition(((9, 13),), (4, 4), False),
    Partition(((10, 8), (10, 8), (5, 3)), (7, 3), True),
    Partition(((13, 8), (1, 7)), (9, 7), True),  # more than one block of queries
    Partition(((1, 1), (1, 7)), (8, 8), True),
    Partition(((3, 7), (5, 6)), (4, 4), True, square_small_maps=True),
]


def random_block(kernel: str = "triton", **options) -> SwinV2Block:
    block = SwinV2Block(CHANNELS, HEADS, pretrained_window=(4, 4), kernel=kernel, **options)
    return randomize(nn.ModuleDict({"block": block}), 0)["block"].to(DEVICE)


def tokens_for(partition: Partition) -> Tensor:
    return pictures(sum(h * w for h, w in partition.sizes), CHANNELS).to(DEVICE)


def fixed_scale(drop_path: DropPath, branch: Tensor, sizes: tuple[Size, ...]) -> Tensor:
    """Return a fixed drop path scale: random ones depend on dtype and device."""
    lengths = torch.tensor([h * w for h, w in sizes], device=branch.device)
    return branch.new_tensor([0.5, 2.0, 0.0][: len(sizes)]).repeat_interleave(lengths)[:, None]


def outcome(block: SwinV2Block, x: Tensor, partition: Partition) -> dict[str, Tensor]:
    """Return the output of a block and the gradients of its input and parameters."""
    x = x.clone().requires_grad_()
    out = block(x, partition)
    out.backward(pictures(*x.shape, seed=2).to(out))
    return {"out": out.detach(), "x": x.grad, **gradients(block)}


@pytest.fixture
def calls(monkeypatch) -> list[Partition]:
    """Record the partitions for which a fused block is computed."""
    found, real = [], triton_block.fused_block

    def counted(*args, save_activations: bool) -> Tensor:
        found.append(args[-1])
        return real(*args, save_activations=save_activations)

    monkeypatch.setattr(triton_block, "fused_block", counted)
    return found


@pytest.mark.parametrize(
    "partition, checkpointing",
    [
        (PARTITIONS[0], False),
        (PARTITIONS[1], True),
        (PARTITIONS[-1], False),
        *(pytest.param(each, False, marks=pytest.mark.slow) for each in PARTITIONS[1:-1]),
    ],
    ids=str,
)
@pytest.mark.heavy
def test_a_fused_block_equals_its_modules(partition, checkpointing, calls, monkeypatch):
    monkeypatch.setattr(DropPath, "scale", fixed_scale)
    x = tokens_for(partition)
    options = {"extra_norm": True, "activation_checkpointing": checkpointing}
    exact = outcome(random_block("reference", **options).double(), x.double(), partition)
    assert not calls
    found = differences(outcome(random_block(**options), x, partition), exact)
    assert calls
    assert max(found.values()) < 3e-5, found


@pytest.mark.parametrize(
    "dtype, autocast",
    [
        (torch.float16, True),
        pytest.param(torch.bfloat16, False, marks=pytest.mark.slow),
        pytest.param(torch.float16, False, marks=pytest.mark.slow),
        pytest.param(torch.bfloat16, True, marks=pytest.mark.slow),
    ],
)
@pytest.mark.heavy
def test_fused_blocks_are_as_exact_in_half_precision_as_modules(dtype, autocast):
    partition = PARTITIONS[1]
    x = tokens_for(partition)
    exact = outcome(random_block("reference").double(), x.double(), partition)
    found = {}
    for kernel in ("reference", "triton"):
        block = random_block(kernel)
        with torch.autocast(DEVICE, dtype=dtype, enabled=autocast):
            result = outcome(block, x, partition) if autocast else None
        if not autocast:
            result = outcome(block.to(dtype), x.to(dtype), partition)
        assert result["out"].dtype == result["x"].dtype == (torch.float32 if autocast else dtype)
        assert result["mlp.fc1.weight"].dtype == block.mlp.fc1.weight.dtype
        found[kernel] = differences(result, exact)
    by_modules, fused = found["reference"], found["triton"]
    eps = torch.finfo(dtype).eps
    for name, error in fused.items():
        assert error < 1.5 * by_modules[name] + 2 * eps, (name, error, by_modules[name])


@pytest.mark.parametrize("autocast", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.heavy
def test_without_gradients_the_result_is_the_same(autocast):
    partition = PARTITIONS[1]
    x, block = tokens_for(partition), random_block().eval()
    with torch.autocast(DEVICE, dtype=torch.float16, enabled=autocast):
        expected = block(x, partition).detach()
        with torch.no_grad():
            given = x.clone()
            actual = block(given, partition)
    assert torch.equal(given, x)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0 if not autocast else 1e-3)


@pytest.mark.heavy
def test_a_block_with_a_hook_is_computed_by_its_modules(calls):
    partition, block = PARTITIONS[0], random_block()
    x, seen = tokens_for(partition), []
    expected = outcome(block, x, partition)
    calls.clear()
    block.zero_grad()
    block.mlp.fc1.register_forward_hook(lambda *_: seen.append(True))
    found = differences(outcome(block, x, partition), expected)
    assert seen and not calls
    assert max(found.values()) < 3e-5, found


@pytest.mark.heavy
def test_a_block_calls_its_changed_layers(calls):
    partition, found = PARTITIONS[0], {}
    x = tokens_for(partition)
    names = ("attn.qkv", "attn.proj", "attn.cpb_mlp.0", "attn.cpb_mlp.2", "mlp.fc2", "norm1")
    for kernel in ("reference", "triton"):
        block = random_block(kernel)
        plain = block(x, partition)
        for name in names:
            adapter(block, name)
        calls.clear()
        found[kernel] = outcome(block, x, partition)
        assert not calls
        assert (found[kernel]["out"] - plain).abs().max() > 0.1
    assert largest_difference(found["triton"], found["reference"]) < 3e-5


def test_a_block_with_another_position_bias_is_computed_by_its_modules(calls):
    class Other(PositionBias):
        def table(self, window: Size) -> Tensor:
            return super().table(window).flip(1)

    partition, found = PARTITIONS[0], {}
    x = tokens_for(partition)
    for kernel in ("reference", "triton"):
        block = random_block(kernel)
        own = block.attn.cpb_mlp
        block.attn.cpb_mlp = Other(HEADS, own.pretrained_window).to(DEVICE)
        block.attn.cpb_mlp.load_state_dict(own.state_dict())
        block.mark_as_built()
        found[kernel] = outcome(block, x, partition)
    assert not calls
    assert largest_difference(found["triton"], found["reference"]) < 3e-5


@pytest.mark.heavy
def test_a_second_derivative_is_refused():
    partition, block = PARTITIONS[0], random_block()
    x = tokens_for(partition).requires_grad_()
    (grad,) = torch.autograd.grad(block(x, partition).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="do not support double backward.*kernel='reference'"):
        grad.square().sum().backward()


@pytest.mark.parametrize(
    "save_activations, dtype",
    [
        (False, torch.float32),
        pytest.param(True, torch.float16, marks=pytest.mark.slow),
        pytest.param(False, torch.float16, marks=pytest.mark.slow),
        pytest.param(True, torch.float32, marks=pytest.mark.slow),
    ],
)
@pytest.mark.heavy
def test_the_operator_keeps_the_rules_of_operators(save_activations, dtype):
    shapes = [*parameter_shapes(32, heads=1).values(), (HIDDEN, 2), (HIDDEN,), (1, HIDDEN)]
    leaves = [pictures(*shape, seed=i).to(DEVICE) for i, shape in enumerate(shapes)]
    parameters, bias = leaves[:-3], leaves[-3:]
    x = pictures(3 * 5 + 2, 32).to(DEVICE)
    leaves = [each.requires_grad_() for each in (x, *leaves)]
    geometry = [3, 5, 1, 2], [2, 2], True, False, [2, 2]
    drop_path = [torch.ones(17, 1, device=DEVICE)] * 2 if save_activations else []
    torch.library.opcheck(
        torch.ops.swinv2.triton_block.default,
        (x, parameters, bias, drop_path, *geometry, dtype, save_activations),
        # In half precision, compiled and eager results differ by rounding.
        **({} if dtype == torch.float32 else {"atol": 1e-2, "rtol": 1e-2}),
    )
    assert all(leaf.requires_grad for leaf in leaves)


@pytest.mark.parametrize(
    "training, options",
    [
        (False, {}),
        pytest.param(True, {}, marks=pytest.mark.slow),
        pytest.param(True, {"activation_checkpointing": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.slow
def test_the_compiled_backbone_is_one_graph_for_all_sizes(training, options):
    shape = {"embed_dim": 32, "depths": (2,), "num_heads": (1,), "window_size": 2}
    shape |= {"out_features": ("res2",)} | options
    kernel = "auto" if DEVICE == "cuda" else "triton"
    model = backbone(shape, kernel=kernel).to(DEVICE).train(training)
    graphs = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=graphs, fullgraph=True, dynamic=True)
    counts = []
    for size in ((8, 12), (11, 7)):
        images = pictures(2, 3, *size).to(DEVICE)
        with torch.set_grad_enabled(training):
            actual, expected = compiled(images), model(images)
        assert largest_difference(actual, expected) < 1e-5
        if training:
            found = []
            for features in (actual, expected):
                model.zero_grad()
                total({name: value.cpu() for name, value in features.items()}).backward()
                found.append(gradients(model))
            assert largest_difference(*found) < 1e-4
        counts.append(graphs.frame_count)
    assert len(set(counts)) == 1


@pytest.mark.parametrize(
    "tokens, channels", [*((77, width) for width in (32, 96, 768)), (1, 96), (1, 1536), (1, 4096)]
)
@pytest.mark.heavy
def test_norms_with_residuals_equal_those_of_torch(tokens, channels):
    x, branch, more = (pictures(tokens, channels, seed=i).to(DEVICE).double() for i in range(3))
    weight, bias = (pictures(channels, seed=i).to(DEVICE).double() for i in (3, 4))
    drop_path = pictures(tokens, 1, seed=5).to(DEVICE).double()
    leaves = [each.requires_grad_() for each in (branch, weight, bias)]
    expected = x + drop_path * F.layer_norm(branch, (channels,), weight, bias)
    grads = torch.autograd.grad(expected, leaves, x + more)
    single = [each.detach().float() for each in (x, branch, weight, bias, drop_path)]
    out, same = triton_rows.add_norm(*single)
    assert out is same
    more_exact, rounded = triton_rows.add_norm(*single, torch.float16)
    assert torch.equal(rounded, more_exact.half())
    for each in (out, more_exact):
        torch.testing.assert_close(each.double(), expected.detach(), rtol=1e-5, atol=1e-5)
    found = triton_rows.add_norm_backward(single[0], more.float(), single[1], single[2], single[4])
    assert torch.equal(found.x, single[0] + more.float())
    for name, grad in zip(("branch", "weight", "bias"), grads):
        torch.testing.assert_close(getattr(found, name).double(), grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.branch_sum, found.branch.sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokens", [1, 77])
def test_the_gradient_of_gelu_equals_that_of_torch(tokens):
    hidden = 3 * pictures(tokens, 384).to(DEVICE)
    grad = pictures(tokens, 384, seed=1).to(DEVICE)
    x = hidden.double().requires_grad_()
    expected = F.gelu(x)
    expected.backward(grad.double())
    activated, total_of_grad = triton_rows.gelu_backward(hidden, grad)
    torch.testing.assert_close(activated.double(), expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad.double(), x.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(total_of_grad, grad.sum(0), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
@pytest.mark.slow
def test_the_check_at_the_first_use_passes_and_notices_a_wrong_block(dtype, monkeypatch):
    device = torch.device(DEVICE)
    monkeypatch.setattr(self_check, "_checked", {})
    before = torch.get_rng_state()
    self_check.check_once(triton_block.CHECK, device, dtype, self_check.BLOCK_TOLERANCES)
    assert torch.equal(torch.get_rng_state(), before)
    assert self_check._checked[triton_block.CHECK, device, dtype]

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx, grad: Tensor) -> Tensor:
            return 1.2 * grad

    def wrong(x: Tensor, *rest) -> Tensor:
        return triton_block.compute_block(Wrong.apply(x), *rest)

    with pytest.raises(RuntimeError, match="the gradient of x is off by .*kernel='reference'"):
        check = self_check.check_of_block(wrong)
        self_check.check_once(check, device, dtype, self_check.BLOCK_TOLERANCES)


class Kernel:
    """A stand-in for a Triton kernel."""

    def __init__(self):
        self.compiled, self.calls = {}, []

    def __getitem__(self, programs: tuple[int]):
        def run(*arguments, **options):
            self.calls.append(("triton", programs, arguments, options))
            return Compiled(self)

        return run


class Compiled:
    def __init__(self, kernel: Kernel):
        self.kernel = kernel

    def __getitem__(self, programs: tuple[int, int, int]):
        return lambda *arguments: self.kernel.calls.append(("direct", programs, arguments))


def test_a_kernel_is_launched_directly_if_it_is_known_and_aligned(monkeypatch):
    monkeypatch.setattr(triton_launch, "_compiled", {})
    kernel, x = Kernel(), torch.zeros(8)

    def launch(tensor: Tensor, constants: tuple[int, ...] = (4,), **options) -> str:
        triton_launch.launch(kernel, 3, (tensor,), (2,), constants, **options)
        assert kernel.calls[-1][2] == (tensor, 2, *constants)
        return kernel.calls[-1][0]

    assert [launch(x), launch(x)] == ["triton", "direct"]
    assert kernel.calls[0][3] == {"num_warps": 4, "num_stages": 1}
    assert kernel.calls[1][1] == (3, 1, 1)
    assert launch(x[1:]) == "triton"  # 4 bytes further
    assert launch(x.half()) == launch(x, (8,)) == launch(x, num_warps=8) == "triton"
    assert launch(torch.zeros(3)) == launch(x.half()) == "direct"


def test_a_kernel_that_was_first_seen_unaligned_is_compiled_again_for_aligned_tensors(monkeypatch):
    monkeypatch.setattr(triton_launch, "_compiled", {})
    kernel, x = Kernel(), torch.zeros(8)
    for tensor in (x[1:], x[1:], x, x):
        triton_launch.launch(kernel, 1, (tensor,), ())
    assert [call[0] for call in kernel.calls] == ["triton", "triton", "triton", "direct"]
