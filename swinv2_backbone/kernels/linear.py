"""Linear layers that see one weight many times: once for every strip of a block.

On x86 processors oneDNN multiplies float32 matrices faster than the BLAS that ``F.linear`` calls,
if the weight is laid out for it first, and it applies GELU while the product is in registers.
Laying out costs some passes over the weight: it pays from some thousand tokens on, and is done
anew in every forward, so that nothing is kept that takes memory or could become stale.
"""

from __future__ import annotations

import platform
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

FEWEST_TOKENS = 2048  # below, laying out costs what it brings

_ONEDNN = (
    platform.machine() in ("x86_64", "AMD64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


class PreparedLinear:
    """``x @ weight.T + bias``, without gradients, for many ``x`` of together ``tokens`` rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None, tokens: int):
        self.weight, self.bias, self.tokens = weight, bias, tokens

    def __call__(self, x: Tensor) -> Tensor:
        """(n, C) -> (n, C')."""
        if self._laid_out is None:
            return F.linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self._laid_out, self.bias, "none", [], "")

    def gelu(self, x: Tensor) -> Tensor:
        """(n, C) -> (n, C'), GELU of the linear layer."""
        if self._laid_out is None:
            return F.gelu(F.linear(x, self.weight, self.bias))
        return torch.ops.mkldnn._linear_pointwise(x, self._laid_out, self.bias, "gelu", [], "none")

    @cached_property
    def _laid_out(self) -> Tensor | None:
        """The weight as oneDNN wants it; None where it is not used."""
        if (
            _ONEDNN
            and torch.backends.mkldnn.enabled
            and self.weight.device.type == "cpu"
            and self.weight.dtype == torch.float32
            and self.tokens >= FEWEST_TOKENS
        ):
            return torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous(), self.tokens)
        return None
