"""Linear layers of tiles, computed by oneDNN, and their gradients.

PyTorch multiplies float32 matrices with the BLAS it was built with, which is not the fastest on
every processor: on AMD's Zen 5, MKL has half the speed of oneDNN.  oneDNN also applies GELU while
the product is in registers.  A weight that is used many times, once for every tile of a block, is
faster still if it is first reordered for oneDNN.  Reordering costs a few passes over the weight and
pays off from a few thousand tokens on.  It is repeated in every forward, so that no copy takes
memory or becomes stale.
"""

from __future__ import annotations

import platform
from functools import cache, cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from swinv2_backbone.precision import X86, accumulation_dtype, supports_bf16

FEWEST_TOKENS = 2048  # with fewer tokens, reordering does not pay off

_ONEDNN = (
    X86 and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


class PreparedLinear:
    """``x @ weight.T + bias`` without autograd, for several ``x`` with ``tokens`` rows in total.

    Args:
        weight: (C', C).
        bias: (C'), or None.
        tokens: the number of rows in total.
        blas: use PyTorch's BLAS even where oneDNN can be used.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, tokens: int, *, blas: bool = False):
        self.weight, self.bias, self.tokens = weight, bias, tokens
        self.by_onednn = not blas and _by_onednn(weight)

    def __call__(self, x: Tensor) -> Tensor:
        """(n, C) -> (n, C')."""
        if self.by_onednn:
            return torch.ops.mkldnn._linear_pointwise(x, self._reordered, self.bias, "none", [], "")
        return F.linear(x, self.weight, self.bias)

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """Add the result for ``x``, of a layer without bias, to ``total`` (n, C')."""
        assert self.bias is None
        return total.add_(self(x)) if self.by_onednn else total.addmm_(x, self.weight.mT)

    def gelu(self, x: Tensor) -> Tensor:
        """(n, C) -> (n, C'), GELU of the linear layer."""
        if self.by_onednn:
            return torch.ops.mkldnn._linear_pointwise(
                x, self._reordered, self.bias, "gelu", [], "none"
            )
        return F.gelu(F.linear(x, self.weight, self.bias))

    @cached_property
    def _reordered(self) -> Tensor:
        """The weight in the order that oneDNN prefers if that pays off, else unchanged."""
        if self.weight.dtype == torch.float32 and self.tokens >= FEWEST_TOKENS:
            return torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous(), self.tokens)
        return self.weight


def by_blas(grad: Tensor) -> bool:
    """Return True if gradients are faster by PyTorch's BLAS than by oneDNN.

    Measured on two cores, SwinV2-T, float32.  On an Intel Xeon with AVX-512 or limited to AVX2, MKL
    computes the gradients of weights 1.1 to 2 times as fast as oneDNN, and those of inputs, whose
    weight oneDNN has to transpose, 1 to 3 times as fast.  On an AMD Zen 5 it has half the speed.
    """
    return grad.dtype in (torch.float32, torch.float64) and not (
        _by_onednn(grad) and _is_amd_with_avx512()
    )


@cache
def _is_amd_with_avx512() -> bool:
    """Return True for AMD's processors with AVX-512, from Zen 4 on."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = platform.processor()  # on Windows, with the vendor
    return "AuthenticAMD" in text and torch.backends.cpu.get_cpu_capability() == "AVX512"


def input_gradient(weight: Tensor, tokens: int) -> PreparedLinear:
    """Return the layer that computes the gradients of inputs, ``grad @ weight``."""
    return PreparedLinear(weight.mT, None, tokens, blas=by_blas(weight))


def linear_gradients(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of weight (C', C) and bias (C'), the latter in at least float32.

    ``grad`` (n, C') is the gradient of the layer's output, ``x`` (n, C) its input.
    """
    if grad.dtype == torch.float32 and _by_onednn(grad):
        return torch.ops.aten.mkldnn_linear_backward_weights(
            grad.to_mkldnn(), x.to_mkldnn(), grad.new_empty(0), True
        )
    return grad.mT @ x, grad.sum(dim=0, dtype=accumulation_dtype(grad.dtype))


def _by_onednn(x: Tensor) -> bool:
    """Return True if oneDNN is enabled and supports the dtype and device of ``x``."""
    return (
        _ONEDNN
        and bool(torch.backends.mkldnn.enabled)
        and x.device.type == "cpu"
        and (x.dtype == torch.float32 or x.dtype == torch.bfloat16 and supports_bf16())
    )
