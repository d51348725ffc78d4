"""The native kernels, at each level of the processor, against PyTorch in float64."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from swinv2_backbone.kernels.cpu import attention
from swinv2_backbone.kernels.cpu.attention import (
    WindowBias,
    tile_attention,
    tile_attention_backward,
)
from swinv2_backbone.kernels.cpu.native import VARIABLE, Native, library, native, state
from swinv2_backbone.kernels.tiles import tiles
from swinv2_backbone.position_bias import bias_matrix
from swinv2_backbone.windows import Partition

BUILT = native()
EPS = 1e-5

pytestmark = pytest.mark.skipif(BUILT is None, reason=f"native kernels: {state()}")


def levels() -> list[int]:
    bits = BUILT._library.swinv2_levels() if BUILT else 0
    return [level for level in range(2) if bits >> level & 1]


@pytest.fixture(params=levels(), ids=lambda level: f"level{level}")
def kernels(request, monkeypatch):
    """Use a level in attention, too."""
    found = Native(BUILT._library, request.param)
    monkeypatch.setattr(attention, "native", lambda: found)
    return found


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def close(found: torch.Tensor, expected: torch.Tensor, limit: float = 1e-5) -> None:
    scale = max(1.0, float(expected.abs().max()))
    assert float((found - expected).abs().max()) / scale < limit


# Window, size of the map, batch, heads, shifted: windows whole and clipped, of one token, of no
# multiple of a vector.
CASES = [
    (8, (32, 24), 1, 3, False),
    (8, (29, 19), 2, 2, True),
    (7, (20, 23), 1, 1, True),
    (1, (3, 4), 1, 2, False),
    (16, (32, 16), 1, 3, True),
    (3, (2, 40), 1, 4, False),
]


def drawn(case, dtype=torch.float64):
    window, size, batch, heads, shifted = case
    generator = torch.Generator().manual_seed(0)
    partition = Partition((size,) * batch, (window, window), shifted, False)
    (tile,) = tiles(partition, 10**9)
    tokens = batch * size[0] * size[1]
    qkv, grad = (
        torch.randn(tokens, width * heads * 32, generator=generator, dtype=dtype)
        for width in (3, 1)
    )
    qkv[0, : 2 * 32 * heads] = 0  # a query and a key without a direction
    scale = torch.rand(heads, 1, generator=generator, dtype=dtype) * 20
    table = torch.randn(heads, (2 * window - 1) ** 2, generator=generator, dtype=dtype)
    return tile, qkv, grad, scale, table, (window, window)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention(kernels, case):
    tile, qkv, _, scale, table, window = drawn(case)
    expected = tile_attention(qkv, scale, WindowBias(table, window), tile)
    qkv, scale, table = (each.float() for each in (qkv, scale, table))
    close(tile_attention(qkv, scale, WindowBias(table, window), tile), expected)


def test_attention_in_large_windows_is_as_exact_as_by_operators(kernels, monkeypatch):
    """A sum over 1024 tokens loses digits if it is not taken in parts."""
    tile, *given, window = drawn((32, (32, 64), 1, 2, False))
    scores = []

    def results(qkv, grad, scale, table):
        bias, of_scale = WindowBias(table, window), torch.zeros_like(scale)
        return torch.cat(
            [
                tile_attention(qkv, scale, bias, tile),
                tile_attention_backward(grad, qkv, scale, bias, tile, of_scale, {}),
            ],
            dim=1,
        )

    expected = results(*given)
    for used in (kernels, None):
        monkeypatch.setattr(attention, "native", lambda used=used: used)
        found = results(*(each.float() for each in given))
        scores.append(float((found - expected).abs().mean()))
    assert scores[0] < 1.2 * scores[1]


@pytest.mark.parametrize("memory", [0, 2**26], ids=["shared", "apart"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_backward_of_attention(kernels, case, memory, monkeypatch):
    monkeypatch.setattr(attention, "BIAS_BYTES", memory)

    def gradients(qkv, grad, scale, table):
        bias, of_bias, of_scale = WindowBias(table, window), {}, torch.zeros_like(scale)
        found = tile_attention_backward(grad, qkv, scale, bias, tile, of_scale, of_bias)
        return found, of_scale, bias.gradient(of_bias)

    tile, *given, window = drawn(case)
    expected = gradients(*given)
    for one, other in zip(gradients(*(each.float() for each in given)), expected, strict=True):
        close(one, other, 2e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (16, 7)], ids=str)
def test_the_bias_of_pairs_and_its_gradient(kernels, size):
    generator = torch.Generator().manual_seed(0)
    offsets = torch.randn(3, 2 * size[0] - 1, 2 * size[1] - 1, generator=generator)
    leaf = offsets.double().requires_grad_()
    expected = bias_matrix(leaf)
    found = kernels.bias(offsets, size)
    assert torch.equal(found.double(), expected)
    grad = torch.randn(found.shape, generator=generator)
    expected.backward(grad.double())
    close(kernels.bias_backward(grad, size), leaf.grad)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("channels", [32, 96])
def test_residual_and_norm(kernels, channels, scaled):
    generator = torch.Generator().manual_seed(0)
    x, branch, grad = (torch.randn(101, channels, generator=generator) for _ in range(3))
    branch = branch * 3 + 5
    weight, bias = (torch.randn(channels, generator=generator) for _ in range(2))
    scales = torch.rand(101, 1, generator=generator).mul(2) if scaled else None
    leaves = [each.double().requires_grad_() for each in (branch, weight, bias)]
    normed = F.layer_norm(leaves[0], (channels,), *leaves[1:], EPS)
    expected = x.double() + (normed if scales is None else normed * scales.double())
    close(kernels.add_norm(x, branch, weight, bias, scales, EPS), expected.detach())
    expected.backward(grad.double())
    found = kernels.add_norm_backward(grad, branch, weight, scales, EPS)
    for one, leaf in zip(found, leaves, strict=True):
        close(one, leaf.grad)


def test_gelu(kernels):
    """Also far from zero, and where the number of elements is no multiple of a vector."""
    far = torch.tensor([0.0, -0.0, 5.5, -5.5, 13.0, -13.0, 1e4, -1e4, 3e38, -3e38, 1e-30])
    x = torch.cat([torch.linspace(-8, 8, 4001), far])
    expected = F.gelu(x.double())
    assert (kernels.gelu(x) - expected).abs().div(expected.abs().clamp(min=1)).max() < 5e-7
    grad = torch.ones_like(x)
    close(kernels.gelu_backward_(x, grad), expected, 5e-7)
    close(grad, torch.ops.aten.gelu_backward(torch.ones_like(expected), x.double()), 1e-6)
    assert torch.equal(kernels.gelu_(x.clone()), kernels.gelu(x))


def test_nan_stays(kernels):
    x = torch.full((4, 32), float("nan"))
    assert kernels.gelu(x).isnan().all()
    assert kernels.add_norm(x, x, x[0], x[0], None, EPS).isnan().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", range(3), ids=["query", "key", "value"])
def test_attention_does_not_hide_what_is_not_finite(kernels, part, value):
    """A training must see that it diverges: the same results are finite as in float64."""
    tile, qkv, grad, scale, table, window = drawn(CASES[1])
    qkv[7, part * qkv.shape[1] // 3 + 5] = value  # of one channel

    def finite(qkv, grad, scale, table):
        bias, of_scale = WindowBias(table, window), torch.zeros_like(scale)
        out = tile_attention(qkv, scale, bias, tile)
        found = tile_attention_backward(grad, qkv, scale, bias, tile, of_scale, {})
        return out.isfinite(), found.isfinite(), of_scale.isfinite()

    expected = finite(qkv, grad, scale, table)
    assert not expected[0].all()
    for one, other in zip(
        finite(*(each.float() for each in (qkv, grad, scale, table))), expected, strict=True
    ):
        assert torch.equal(one, other)


def test_threads_share_the_work(kernels):
    """With any number of threads, the outputs are equal."""
    tile, qkv, _, scale, table, window = drawn(CASES[1], torch.float32)
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(tile_attention(qkv, scale, WindowBias(table, window), tile))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_its_threads_are_those_of_pytorch():
    """The process has one OpenMP: a second pool of threads would compete for the cores."""
    program = (
        "import torch; from swinv2_backbone.kernels.cpu.native import native; "
        "torch.rand(9, 32).softmax(-1); native().gelu(torch.rand(9999)); "
        "print(len({line.split()[-1] for line in open('/proc/self/maps') if 'libgomp' in line}))"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "1\n"


def test_the_library_can_be_switched_off(monkeypatch):
    monkeypatch.setenv(VARIABLE, "0")
    assert native() is None and state() == f"not used ({VARIABLE}=0)"


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "not built"), (b"no library", "cannot be loaded: ")],
)
def test_a_package_without_a_library_says_why(content, words, tmp_path, monkeypatch):
    if content:
        (tmp_path / "_kernels.abi3.so").write_bytes(content)
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    found, why = library._loaded.__wrapped__("")
    assert found is None and why.startswith(words)


def test_a_processor_without_the_instructions_does_without(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    found, why = library._loaded.__wrapped__("")
    assert (found is None) == (platform.machine() in library.X86) and "DEFAULT" in why


def test_a_library_of_other_sources_is_not_used(monkeypatch):
    """As after an update of the sources, until the package is installed again."""
    monkeypatch.setattr(library, "VERSION", library.VERSION + 1)
    found, why = library._loaded.__wrapped__("")
    assert found is None and why.startswith("built from other sources")
