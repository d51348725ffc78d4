"""GELU and its gradient on tiles, by the native kernels where they are faster."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from swinv2_backbone.kernels.cpu.linear import PreparedLinear
from swinv2_backbone.kernels.cpu.native import Native, native

MULTIPLE = 16  # of channels, the longest vector


def native_for(x: Tensor) -> Native | None:
    """Return the native kernels if they can compute rows of ``x``."""
    fits = x.dtype == torch.float32 and x.device.type == "cpu" and x.shape[-1] % MULTIPLE == 0
    return native() if fits and x.is_contiguous() else None


def linear_gelu(layer: PreparedLinear, x: Tensor) -> Tensor:
    """Return GELU of a linear layer.

    With the native kernels the result is bitwise that of :func:`gelu`, so that a block computes the
    same in training and in evaluation.
    """
    library = native_for(x)
    return library.gelu_(layer(x)) if library else layer.gelu(x)


def gelu(x: Tensor) -> Tensor:
    library = native_for(x)
    return library.gelu(x) if library else F.gelu(x)


def gelu_backward(x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return GELU of ``x``, and the gradient of ``x`` from that of GELU, whose memory is reused."""
    if library := native_for(x):
        return library.gelu_backward_(x, grad), grad
    return F.gelu(x), torch.ops.aten.gelu_backward(grad, x)
