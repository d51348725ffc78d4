"""Triton kernels over rows of tokens: the computations between the matrix products of a block.

They are the norms with their residuals, and the gradient of GELU, whose sum over tokens is the
gradient of a bias.  Each kernel reads and writes its tensors once, computes in float32 and rounds
at the end.  (They are memory-bound, like all of a block except its matrix products.)

Sums over tokens are computed by up to PROGRAMS programs, whose partial sums are then added, in the
same order in every run.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from swinv2_backbone.kernels.triton.device import rows as device
from swinv2_backbone.kernels.triton.launch import cdiv, launch

BLOCK = 4096  # elements of a tensor that a program holds in registers
BLOCK_BACKWARD = 2048  # in the backward, where it holds more tensors
PROGRAMS = 528  # that sum; a few for each of the 100 to 150 multiprocessors of a large GPU
COLUMNS = 128  # per block of the hidden layer, whose width is a multiple of it


def add_norm(
    x: Tensor,
    branch: Tensor,
    weight: Tensor,
    bias: Tensor,
    drop_path: Tensor | None,
    rounded: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute ``x + drop_path * LayerNorm(branch)``, (T, C), and the same in another dtype.

    Args:
        x, branch: (T, C); the result has the dtype of ``x``.
        weight, bias: (C,), of the norm.
        drop_path: the per-token scale (T, 1), or None.
        rounded: dtype of the second result; if it is None or the dtype of ``x``, the second result
            is the first.
    """
    (tokens, channels), out = x.shape, torch.empty_like(x)
    rounds = rounded not in (None, x.dtype)
    second = torch.empty_like(x, dtype=rounded) if rounds else out
    rows, width = _block_size(channels, BLOCK)
    launch(
        device.add_norm,
        cdiv(tokens, rows),
        (x, branch, weight, bias, x if drop_path is None else drop_path, out, second),
        (tokens, channels),
        (rows, width, drop_path is not None, rounds),
    )
    return out, second


class NormGradients(NamedTuple):
    """The gradients of :func:`add_norm`, and the sum of the branch's gradient over tokens."""

    x: Tensor  # (T, C)
    branch: Tensor  # (T, C)
    weight: Tensor  # (C,) float32
    bias: Tensor  # (C,) float32
    branch_sum: Tensor  # (C,) float32


def add_norm_backward(
    grad: Tensor, more: Tensor | None, branch: Tensor, weight: Tensor, drop_path: Tensor | None
) -> NormGradients:
    """Return the gradients of :func:`add_norm`, whose result has the gradient ``grad + more``."""
    tokens, channels = grad.shape
    total = grad if more is None else torch.empty_like(grad)
    grad_branch = torch.empty_like(branch)
    rows, width = _block_size(channels, BLOCK_BACKWARD)
    programs = min(PROGRAMS, cdiv(tokens, rows))
    sums = grad.new_empty(programs, 3 * channels, dtype=torch.float32)
    more_or, drop_path_or = (grad if given is None else given for given in (more, drop_path))
    launch(
        device.add_norm_backward,
        programs,
        (grad, more_or, branch, weight, drop_path_or, total, grad_branch, sums),
        (tokens, channels, programs),
        (rows, width, drop_path is not None, more is not None),
        num_warps=8,
    )
    return NormGradients(total, grad_branch, *sums.sum(0).view(3, channels).unbind())


def gelu_backward(hidden: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``gelu(hidden)`` (T, H), and the gradient of ``hidden`` summed over tokens (H,).

    ``grad`` (T, H), the gradient of ``gelu(hidden)``, is OVERWRITTEN by the gradient of ``hidden``.
    """
    tokens, width = hidden.shape
    activated = torch.empty_like(hidden)
    rows = BLOCK_BACKWARD // COLUMNS
    programs = min(cdiv(PROGRAMS, width // COLUMNS), cdiv(tokens, rows))
    sums = hidden.new_empty(programs, width, dtype=torch.float32)
    launch(
        device.gelu_backward,
        programs * (width // COLUMNS),
        (hidden, grad, activated, sums),
        (tokens, width, programs),
        (rows, COLUMNS),
        num_warps=8,
    )
    return activated, sums.sum(0)


@cache
def _block_size(channels: int, block: int) -> tuple[int, int]:
    """Return the rows and the width of a block, both powers of two."""
    width = triton.next_power_of_2(channels)
    return max(1, block // width), width
