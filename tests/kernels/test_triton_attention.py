"""The Triton kernels of attention, compared with attention in float64.

Without a GPU, ``conftest.py`` enables Triton's interpreter before Triton is imported, and the
kernels are also compiled for two kinds of GPU, which requires none.  With a GPU, the same tests run
the compiled kernels.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from models import TWO_STAGES, backbone, gradients, largest_difference, pictures, total
from torch import Tensor

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from triton_interpreter import (  # noqa: E402
    DEVICE,
    bfloat16_as_on_a_gpu,  # noqa: F401
    interpreter_without_repetition,  # noqa: F401
    kernels_checked_before,  # noqa: F401
)

from swinv2_backbone.kernels import self_check  # noqa: E402
from swinv2_backbone.kernels.triton import attention as kernels  # noqa: E402
from swinv2_backbone.kernels.triton.attention import triton_window_attention  # noqa: E402
from swinv2_backbone.kernels.triton.device import attention_backward, attention_forward  # noqa: E402
from swinv2_backbone.packing import Size  # noqa: E402
from swinv2_backbone.windows import Partition  # noqa: E402

HEADS = 2
HALF = [torch.float16, torch.bfloat16]
SINGLE = [1e-5, 1e-5, 1e-4, 1e-5]  # logits of 116 have an eps of 7e-6 in float32
# A window, and maps: odd, larger or smaller than the window, along one axis or both.
CASES = [
    ((7, 7), ((9, 15), (5, 20), (3, 2))),
    ((8, 8), ((17, 16), (8, 7))),
    ((4, 6), ((9, 15), (3, 20))),
    ((1, 5), ((3, 7),)),
    ((12, 12), ((13, 14), (5, 7))),
    ((9, 12), ((12, 11), (8, 19))),
    ((16, 16), ((17, 16), (5, 18))),
    ((24, 24), ((9, 26),)),
    ((16, 12), ((7, 5), (4, 5))),
    ((40, 64), ((14, 11),)),
]
LONG = [CASES[i] for i in (5, 6, 7, 9)]  # (12, 12) takes several blocks too


def inputs(
    window: Size, sizes: tuple[Size, ...], dtype: torch.dtype = torch.float32, heads: int = HEADS
) -> tuple[Tensor, ...]:
    """Draw qkv, scale, table, and a gradient of the result; the last head has the largest scale."""
    generator = torch.Generator().manual_seed(0)
    tokens, offsets = sum(map(prod, sizes)), prod(2 * length - 1 for length in window)
    qkv = torch.randn(tokens, 96 * heads, generator=generator).to(dtype)
    table = 16 * torch.rand(heads, offsets, generator=generator)
    grad = torch.randn(tokens, 32 * heads, generator=generator).to(dtype)
    return tuple(x.to(DEVICE) for x in (qkv, torch.linspace(10, 100, heads), table, grad))


def segments(length: int, window: int, shifted: bool) -> Tensor:
    """Return the segment of every coordinate of an axis; tokens attend within their segments."""
    shift = window // 2 if shifted and length > window else 0
    return (torch.arange(length) + (window - shift) % window) // window


def reference(qkv: Tensor, scale: Tensor, table: Tensor, partition: Partition) -> Tensor:
    """Attend to every token of the image, except across clipped windows."""
    (sizes, window, shifted, _), results = partition, []
    for own, (height, width) in zip(qkv.split([prod(size) for size in sizes]), sizes):
        row, column = torch.cartesian_prod(torch.arange(height), torch.arange(width)).unbind(1)
        row_segment = segments(height, window[0], shifted)[row]
        column_segment = segments(width, window[1], shifted)[column]
        together = row_segment[:, None] == row_segment
        together &= column_segment[:, None] == column_segment
        d_row, d_column = row[:, None] - row, column[:, None] - column
        index = (d_row + window[0] - 1) * (2 * window[1] - 1) + d_column + window[1] - 1
        bias = table[:, torch.where(together, index, 0).to(qkv.device)]
        q, k, v = own.unflatten(-1, (3, len(scale), 32)).permute(1, 2, 0, 3)
        q, k = (F.normalize(x, dim=-1, eps=1e-6) for x in (q, k))
        logits = q @ k.transpose(-2, -1) * scale[:, None, None] + bias
        logits = logits.masked_fill(~together.to(qkv.device), float("-inf"))
        results.append((logits.softmax(-1) @ v).transpose(0, 1).flatten(1))
    return torch.cat(results)


def differentiate(
    function, qkv: Tensor, scale: Tensor, table: Tensor, grad: Tensor, partition: Partition
):
    """Return the result, and the gradients of qkv, scale and table."""
    leaves = [x.detach().clone().requires_grad_() for x in (qkv, scale, table)]
    out = function(*leaves, partition)
    out.backward(grad)
    return out.detach(), *(leaf.grad for leaf in leaves)


def assert_equal(actual, expected, tolerances) -> None:
    """Check that tensors are equal, each within its tolerance relative to its largest element."""
    for one, other, tolerance in zip(actual, expected, tolerances, strict=True):
        error = (one.double() - other).abs().max() / other.abs().max()
        assert error < tolerance, f"{error:.1e} of the largest element"


def compare(window, sizes, shifted, dtype, tolerances, **options) -> None:
    given = inputs(window, sizes, dtype, **options)
    actual = differentiate(triton_window_attention, *given, Partition(sizes, window, shifted))
    assert actual[0].dtype == actual[1].dtype == dtype
    expected = differentiate(
        reference, *(x.double() for x in given), Partition(sizes, window, shifted)
    )
    assert_equal(actual, expected, tolerances)


@pytest.mark.parametrize(
    "window, sizes, shifted",
    [
        *((*case, True) for case in CASES if case not in LONG),
        *((*case, False) for case in CASES if prod(case[0]) < 100),
        *(pytest.param(*case, True, marks=pytest.mark.slow) for case in LONG),
        *(
            pytest.param(*case, False, marks=pytest.mark.slow)
            for case in CASES
            if prod(case[0]) >= 100
        ),
    ],
    ids=str,
)
@pytest.mark.heavy
def test_result_and_gradients_equal_attention_in_float64(window, sizes, shifted):
    compare(window, sizes, shifted, torch.float32, SINGLE)


@pytest.mark.parametrize(
    "window, sizes, dtype",
    [
        (*CASES[2], torch.bfloat16),
        pytest.param(*CASES[2], torch.float16, marks=pytest.mark.slow),
        *(pytest.param(*CASES[i], dtype, marks=pytest.mark.slow) for i in (0, 4) for dtype in HALF),
    ],
    ids=str,
)
@pytest.mark.heavy
def test_half_precision_is_as_exact_as_its_inputs(window, sizes, dtype):
    # The gradients of scale and table are sums in float32 and never see the results' rounding.
    eps = torch.finfo(dtype).eps
    compare(window, sizes, True, dtype, [eps, 2 * eps, 1e-4, 1e-4])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize(
    "window, sizes",
    [((24, 24), ((26, 25),)), ((34, 33), ((35, 36),)), ((64, 64), ((5, 64),))],
    ids=str,
)
def test_large_windows_equal_attention_in_float64(window, sizes, dtype):
    eps = torch.finfo(dtype).eps
    tolerances = SINGLE if dtype == torch.float32 else [eps, 2 * eps, 1e-4, 1e-4]
    compare(window, sizes, True, dtype, tolerances, heads=1)


@pytest.mark.parametrize(
    "window, sizes", [CASES[2], pytest.param(*CASES[4], marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("length", [0, 1e-7], ids=["zero", "short"])
@pytest.mark.heavy
def test_queries_and_keys_shorter_than_eps_are_divided_by_eps(length, window, sizes):
    qkv, *others = inputs(window, sizes)
    qkv = qkv.unflatten(-1, (3, HEADS, 32)).clone()
    qkv[::3, 0] *= length
    qkv[1::4, 1] *= length
    given = qkv.flatten(1), *others
    actual = differentiate(triton_window_attention, *given, Partition(sizes, window, False))
    expected = differentiate(
        reference, *(x.double() for x in given), Partition(sizes, window, False)
    )
    assert_equal(actual, expected, SINGLE)
    # Those gradients dwarf the others.
    long = qkv[:, :2].norm(dim=-1, keepdim=True) > 1e-6
    actual, expected = (x[1].view(qkv.shape)[:, :2] * long for x in (actual, expected))
    assert_equal([actual], [expected], [1e-5])


@pytest.mark.parametrize(
    "dtype", [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.slow)]
)
@pytest.mark.heavy
def test_half_precision_with_queries_and_keys_of_zero_is_finite(dtype):
    window, sizes = CASES[2]
    qkv, scale, table, grad = inputs(window, sizes, dtype)
    qkv[::3, : 2 * 32 * HEADS] = 0
    given = qkv, scale, table, 1e-4 * grad  # small, because it is divided by norms of 1e-6
    for result in differentiate(triton_window_attention, *given, Partition(sizes, window, True)):
        assert result.isfinite().all()


def test_inputs_and_gradients_need_not_be_contiguous():
    window, sizes = CASES[3]
    qkv, scale, table, grad = inputs(window, sizes)
    ones = torch.ones_like(grad)
    expected = differentiate(
        triton_window_attention, qkv, scale, table, ones, Partition(sizes, window, True)
    )

    def of_views(qkv: Tensor, scale: Tensor, table: Tensor, partition: Partition) -> Tensor:
        twice = torch.stack((qkv, table.new_zeros(qkv.shape)), dim=-1)[..., 0]
        assert not twice.is_contiguous()
        table = table.t().contiguous().t()
        return triton_window_attention(twice, scale.view(-1, 1, 1), table, partition)

    given = qkv, scale, table, grad.new_ones(1).expand_as(grad)
    actual = differentiate(of_views, *given, Partition(sizes, window, True))
    assert all(map(torch.equal, actual, expected))


@pytest.mark.heavy
def test_a_backbone_with_the_kernel_equals_the_reference():
    results = []
    for kernel in ("reference", "triton"):
        shape = TWO_STAGES | {"embed_dim": 64, "num_heads": (2, 4), "depths": (1, 2)}
        model = backbone(shape, kernel=kernel).to(DEVICE)
        features = model(pictures(2, 3, 37, 29).to(DEVICE), [(37, 29), (20, 11)])
        total({name: value.cpu() for name, value in features.items()}).backward()
        results.append((features, gradients(model)))
    (expected, expected_gradients), (actual, actual_gradients) = results
    assert largest_difference(actual, expected) < 1e-4
    assert largest_difference(actual_gradients, expected_gradients) < 1e-2


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in HALF)],
)
@pytest.mark.heavy
def test_the_check_at_the_first_use_passes_and_notices_a_wrong_kernel(dtype, monkeypatch):
    device = torch.device(DEVICE)
    monkeypatch.setattr(self_check, "_checked", {})
    self_check.check_once(kernels.CHECK, device, dtype)
    assert self_check._checked[kernels.CHECK, device, dtype]
    self_check.check_once(kernels.CHECK, device, dtype)  # not again

    def wrong(qkv: Tensor, scale: Tensor, table: Tensor, partition: Partition) -> Tensor:
        return triton_window_attention(qkv, 1.1 * scale, table, partition)

    check = self_check.check_of_attention(wrong)
    with pytest.raises(RuntimeError, match="wrong on .*off by .*kernel='reference'"):
        self_check.check_once(check, device, dtype)
    assert not self_check._checked[check, device, dtype]


@pytest.mark.heavy
def test_the_check_at_the_first_use_may_be_inside_activation_checkpointing(monkeypatch):
    monkeypatch.setattr(self_check, "_checked", {})
    x = torch.ones(3, device=DEVICE, requires_grad=True)

    def checking(x: Tensor) -> Tensor:
        self_check.check_once(kernels.CHECK, x.device, torch.float32)
        return x.sin() * x

    torch.utils.checkpoint.checkpoint(checking, x, use_reentrant=False).sum().backward()
    torch.testing.assert_close(x.grad, x.detach().sin() + x.detach().cos())


def test_other_head_dimensions_raise_an_error():
    qkv, scale, table, _ = inputs((4, 6), ((2, 2),))
    with pytest.raises(ValueError, match="64 channels per head, not 32"):
        triton_window_attention(qkv, scale[:1], table[:1], Partition(((2, 2),), (4, 6), False))


def test_other_dtypes_windows_and_sizes_raise_an_error():
    qkv, scale, table, _ = inputs((4, 6), ((2, 2),))
    with pytest.raises(ValueError, match="float64"):
        triton_window_attention(qkv.double(), scale, table, Partition(((2, 2),), (4, 6), False))
    with pytest.raises(ValueError, match=r"\(4, 65\) is wider than 64"):
        triton_window_attention(qkv, scale, table, Partition(((2, 2),), (4, 65), False))
    with pytest.raises(ValueError, match="4 tokens"):
        triton_window_attention(qkv, scale, table, Partition(((2, 3),), (4, 6), False))


@pytest.mark.parametrize(
    "window, size",
    [((2, 3), (3, 4)), pytest.param((9, 8), (9, 10), marks=pytest.mark.slow)],
    ids=str,
)
@pytest.mark.heavy
def test_operators_pass_opcheck(window, size):
    *given, _ = inputs(window, (size,))
    leaves = [x.requires_grad_() for x in given]
    torch.library.opcheck(
        torch.ops.swinv2.triton_window_attention.default,
        (*leaves, [*size], [*window], True, False),
    )


@pytest.mark.slow  # opcheck and a compiled backbone of test_triton_block.py are run by default
@pytest.mark.heavy
def test_compiled_attention_is_one_graph_for_all_sizes():
    window = (2, 3)
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return torch._dynamo.backends.debugging.aot_eager(graph, example_inputs)

    torch._dynamo.reset()
    compiled = torch.compile(triton_window_attention, backend=backend, fullgraph=True, dynamic=True)
    for sizes in (((3, 4), (5, 7)), ((9, 6), (4, 8))):
        given = *inputs(window, sizes), Partition(sizes, window, True)
        expected = differentiate(triton_window_attention, *given)
        assert all(map(torch.equal, differentiate(compiled, *given), expected))
    assert len(graphs) == 1


# Compiling without a GPU

TESTS = Path(__file__).parents[1]

ARRAYS = {name: "fp32" for name in ("scale", "table", "lse", "delta", "pairs")}
ARRAYS |= {"grad_scale": "fp32", "grad_table": "fp32", "windows": "i32"}
TENSORS = ("qkv", "out", "grad", "grad_qkv")  # in the dtype of the model
NAMES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BINARIES = [  # kernel, dtype, constants, bytes that a thread may spill at most
    ("forward_whole", "bf16", {"COLUMNS": 8, "BLOCK": 64}, 0),
    ("forward_whole", "fp32", {"COLUMNS": 8, "BLOCK": 64}, 0),
    ("forward_block", "bf16", {"COLUMNS": 16, "BLOCK": 64}, 0),
    ("forward_block", "fp16", {"COLUMNS": 24, "BLOCK": 32}, 0),
    ("forward_block", "fp32", {"COLUMNS": 16, "BLOCK": 64}, 0),
    ("backward_queries", "bf16", {"COLUMNS": 16, "BLOCK": 64}, 0),
    ("backward_keys", "bf16", {"COLUMNS": 16, "BLOCK": 64}, 150),
    ("backward_pairs", "bf16", {"COLUMNS": 16, "BLOCK": 64, "WHOLE": False}, 50),
    ("backward_pairs", "bf16", {"COLUMNS": 8, "BLOCK": 64, "WHOLE": True}, 350),
    ("fold", "fp32", {"COLUMNS": 16, "BLOCK": 64, "OFFSETS": 128}, 0),
]


def compile_for(capability: int) -> list[dict]:
    """Return registers, spilled bytes and shared memory of all BINARIES for a capability."""
    reports = []
    for name, dtype, constants, _ in BINARIES:
        module = attention_forward if name.startswith("forward") else attention_backward
        kernel, stages = getattr(module, name), kernels.PREFETCH if "whole" in name else 1
        options = {"num_warps": kernels.WARPS[NAMES[dtype]], "num_stages": stages}
        types = {name: f"*{given}" for name, given in ARRAYS.items()}
        types |= {name: f"*{dtype}" for name in TENSORS} | dict.fromkeys(constants, "constexpr")
        signature = {argument: types.get(argument, "i32") for argument in kernel.arg_names}
        aligned = {
            (i,): [["tt.divisibility", 16]]
            for i, argument in enumerate(kernel.arg_names)
            if types.get(argument, "").startswith("*")
        }
        source = ASTSource(kernel, signature, constants, aligned)
        binary = triton.compile(source, GPUTarget("cuda", capability, 32), options)
        reports.append({"shared": binary.metadata.shared} | resources(binary.asm["ptx"]))
    return reports


def resources(ptx: str) -> dict[str, int]:
    """Return the resources of a kernel, as the assembler reports them."""
    target = re.search(r"\.target (\w+)", ptx)[1]
    command = [triton.knobs.nvidia.ptxas.path, "-v", "--regAllocOptLevel=2"]
    command += [f"--gpu-name={target}", "-o", os.devnull, "/dev/stdin"]
    report = subprocess.run(command, input=ptx, capture_output=True, text=True, check=True).stderr
    return {
        "registers": int(re.search(r"Used (\d+) registers", report)[1]),
        "spilled": int(re.search(r"(\d+) bytes spill stores", report)[1]),
    }


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.slow
def test_kernels_compile_and_spill_little(capability, tmp_path):
    # In a separate process, because the kernels of this one are interpreted.
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    environment["PYTHONPATH"] = os.pathsep.join((str(TESTS), str(TESTS.parent)))
    done = subprocess.run(
        [sys.executable, __file__, str(capability)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for (name, dtype, constants, most), report in zip(BINARIES, json.loads(done.stdout)):
        assert report["spilled"] <= most, (name, dtype, constants, report)
        assert report["shared"] <= 48 * 1024, (name, dtype, constants, report)


if __name__ == "__main__":
    print(json.dumps(compile_for(int(sys.argv[1]))))
