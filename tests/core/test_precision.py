"""Linear layers in bfloat16 on a CPU that can only emulate its products."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from models import pictures

from swinv2_backbone import precision
from swinv2_backbone.precision import compute_dtype, linear


@pytest.fixture
def without_bfloat16(monkeypatch):
    monkeypatch.setattr(precision, "supports_bf16", lambda: False)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_computed_in_float32(autocast, with_bias, without_bfloat16):
    x, weight, bias = pictures(40, 64), pictures(32, 64, seed=1), pictures(32, seed=2)
    bias = bias if with_bias else None
    if not autocast:
        x, weight = x.bfloat16(), weight.bfloat16()
        bias = bias.bfloat16() if with_bias else None
    expected = F.linear(x.float(), weight.float(), bias.float() if with_bias else None)
    weight.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = linear(x, weight, bias)
    assert found.dtype == torch.bfloat16 and torch.equal(found, expected.bfloat16())
    found.float().sum().backward()
    assert weight.grad.dtype == weight.dtype and weight.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_other_dtypes_are_not_changed(dtype, without_bfloat16):
    assert compute_dtype(dtype) == dtype
    x, weight = pictures(40, 64).to(dtype), pictures(32, 64, seed=1).to(dtype)
    assert torch.equal(linear(x, weight), F.linear(x, weight))


def test_float64_stays_under_autocast(without_bfloat16):
    x, weight = pictures(4, 8).double(), pictures(3, 8, seed=1).double()
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.float64


def test_a_processor_with_bfloat16_uses_it(monkeypatch):
    monkeypatch.setattr(precision, "supports_bf16", lambda: True)
    assert compute_dtype(torch.bfloat16) == torch.bfloat16


@pytest.mark.parametrize("autocast", [False, True])
def test_a_compiled_or_exported_graph_does_not_depend_on_the_processor(autocast):
    class Layer(torch.nn.Linear):
        def forward(self, x):
            return linear(x, self.weight, self.bias)

    layer, x = Layer(8, 4), pictures(3, 8)
    if not autocast:
        layer, x = layer.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = F.linear(x, layer.weight, layer.bias)
        compiled = torch.compile(layer, backend="eager", fullgraph=True)
        assert torch.equal(compiled(x), expected)
        graph = torch.export.export(layer, (x,)).graph
    assert "mkldnn" not in str(graph) and "autocast" not in str(graph)


def test_dtypes_that_do_not_fit_are_refused(without_bfloat16):
    with pytest.raises(RuntimeError, match="dtype"):
        linear(pictures(3, 8).bfloat16(), pictures(4, 8))


def test_a_build_of_pytorch_without_onednn_is_asked_nothing(monkeypatch):
    monkeypatch.setattr(precision, "X86", True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not precision.supports_bf16.__wrapped__()
