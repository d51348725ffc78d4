"""Which of the ways to compute a block is taken: the one place that decides it.

- "reference": ``attention.window_attention`` and the modules of the block, as they are written.
- "strips": the whole block strip by strip (strip_block.py).
- "triton": the attention as one fused kernel on the GPU (triton_attention.py), the rest as modules.
- "auto": "strips" on a CPU, "triton" on a GPU of NVIDIA's or AMD's where Triton is installed, else
  "reference".

The environment variable SWINV2_KERNEL, read when a model is built, stands above what the model is
told: to find out whether a strange result comes from a kernel.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch
from torch import Tensor, nn

KERNELS = ("auto", "reference", "strips", "triton")
VARIABLE = "SWINV2_KERNEL"
TRITON_HEAD_DIM = 32  # of every published model; the kernel is written for it alone
TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def asked_for(kernel: str) -> str:
    """The kernel that a model is built with, if ``kernel`` is what it is told.

    Raises:
        ValueError: there is no such kernel.
    """
    given = os.environ.get(VARIABLE)
    for value, place in ((kernel, "kernel"), (given, f"the environment variable {VARIABLE}")):
        if value is not None and value not in KERNELS:
            raise ValueError(f"{place} must be one of {', '.join(KERNELS)}, got {value!r}")
    return given or kernel


def choose(kernel: str, x: Tensor, head_dim: int, block: nn.Module) -> str:
    """ "reference", "strips" or "triton", for the tokens ``x`` of a block.

    A block with hooks inside, or with a layer that is not what the class made (quantised, wrapped,
    with an adapter), is computed by its modules, as a kernel would pass these by.

    Raises:
        ValueError: the kernel that was asked for cannot be had.
    """
    device = x.device.type
    if kernel == "auto":
        by_device = {"cpu": "strips", "cuda": "triton"}
        kernel = by_device.get(device, "reference")
        if kernel == "triton" and (not has_triton() or not _fits_triton(x, head_dim)):
            return "reference"
    elif kernel == "triton":
        _check_triton(x, head_dim)
    if kernel == "strips" and (torch.jit.is_tracing() or not _as_built(block)):
        return "reference"  # a trace shows operators; counting them is what it is for
    return kernel


@cache
def has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _fits_triton(x: Tensor, head_dim: int) -> bool:
    return head_dim == TRITON_HEAD_DIM and x.dtype in TRITON_DTYPES


def _check_triton(x: Tensor, head_dim: int) -> None:
    if not has_triton():
        raise ValueError("kernel 'triton' needs Triton: pip install triton, or kernel='auto'")
    if not _fits_triton(x, head_dim):
        raise ValueError(
            f"kernel 'triton' is for heads of {TRITON_HEAD_DIM} channels in float32, float16 or "
            f"bfloat16, got {head_dim} channels in {x.dtype}: use kernel='auto'"
        )


def _as_built(block: nn.Module) -> bool:
    """Whether calling the modules inside ``block`` would do no more than their classes say."""
    plain = (nn.Linear, nn.LayerNorm)
    return all(
        not (m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks)
        and (type(m) in plain or type(m).__module__.startswith(("swinv2_backbone.", "torch.nn.")))
        for m in block.modules()
        if m is not block
    )
