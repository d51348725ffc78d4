"""The choice of the kernel that computes a block, which is made in this file only.

- "reference": ``attention.window_attention`` and the modules of the block.
- "tiles": the whole block on a CPU, tile by tile (cpu/block.py).
- "triton": the whole block on a GPU, with fused kernels around its matrix products
  (triton/block.py); attention alone (triton/attention.py) if a layer inside was replaced.
- "auto": "tiles" on a CPU, "triton" on a GPU where Triton is available, else "reference".

The environment variable SWINV2_KERNEL, read when a model is built, overrides the argument of the
model, for example to find out whether an unexpected result comes from a kernel.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from contextlib import suppress
from enum import Enum
from functools import lru_cache

import torch

from swinv2_backbone.packing import Size


class Kernel(str, Enum):
    """The implementations of a block; users can select all but the last."""

    AUTO = "auto"
    REFERENCE = "reference"
    TILES = "tiles"
    TRITON = "triton"
    TRITON_ATTENTION = "triton attention"  # attention alone, the rest by the modules of the block


KERNELS = ("auto", "reference", "tiles", "triton")  # those that users can select
VARIABLE = "SWINV2_KERNEL"
BY_MODULES = {Kernel.TILES: Kernel.REFERENCE, Kernel.TRITON: Kernel.TRITON_ATTENTION}
TRITON_HEAD_DIM = 32  # as in every published model; the kernels support no other
TRITON_WIDEST = 64  # largest width of a window, in tokens
TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def asked_for(kernel: str) -> str:
    """Return the kernel to build a model with: the environment variable, if set, or the argument.

    Raises:
        ValueError: the kernel does not exist.
    """
    given = os.environ.get(VARIABLE)
    for value, place in ((kernel, "kernel"), (given, f"the environment variable {VARIABLE}")):
        if value is not None and value not in KERNELS:
            raise ValueError(f"{place} must be one of {', '.join(KERNELS)}, got {value!r}")
    return given or kernel


def is_traced() -> bool:
    """Return True while a model is traced or exported: the graph needs standard operators."""
    return torch.jit.is_tracing() or is_exporting()


def is_exporting() -> bool:
    """Return True while torch.export traces; up to PyTorch 2.11 also while torch.compile does."""
    return torch.compiler.is_exporting() and getattr(torch.compiler, "_is_exporting_flag", True)


def choose(
    asked: str,
    device: torch.device,
    dtype: torch.dtype,
    window: Size,
    head_dim: int,
    *,
    plain: bool,
    plain_bias: bool,
) -> Kernel:
    """Return the kernel that computes a block.

    Args:
        asked: one of ``KERNELS``.
        device, dtype: device and dtype of the block's tokens.
        window: (Mh, Mw).
        head_dim: channels per head.
        plain: True if the inner modules are those the block was built with, without hooks.  Any
            other block is computed by its modules, because whole-block kernels do not call them.
        plain_bias: True if the position bias is a ``PositionBias``, which "triton" computes itself.

    Raises:
        ValueError: the kernel that was asked for is not available.
    """
    kernel = available(asked, device, dtype, window, head_dim)
    if not plain or (kernel is Kernel.TRITON and not plain_bias):
        return BY_MODULES.get(kernel, kernel)
    return kernel


# Cached, because every block chooses in every forward.
kept_choice = lru_cache(maxsize=256)(choose)


def available(
    asked: str, device: torch.device, dtype: torch.dtype, window: Size, head_dim: int
) -> Kernel:
    """Return the kernel of a plain block, see :func:`choose`."""
    kernel = Kernel(asked)
    if kernel is Kernel.AUTO:
        return _fastest(device, dtype, window, head_dim)
    if kernel is Kernel.TRITON and (why := why_not_triton(device, dtype, window, head_dim)):
        raise ValueError(f"kernel 'triton' {why}: use kernel='auto'")
    if kernel is Kernel.TILES and device.type != "cpu":
        raise ValueError(
            f"kernel 'tiles' runs on CPUs only, but the model is on {device.type}: use "
            "kernel='auto'"
        )
    return kernel


def _fastest(device: torch.device, dtype: torch.dtype, window: Size, head_dim: int) -> Kernel:
    if device.type == "cpu":
        return Kernel.TILES
    if device.type != "cuda" or why_not_triton(device, dtype, window, head_dim):
        return Kernel.REFERENCE
    return Kernel.TRITON if supports_bf16(device) else Kernel.REFERENCE


def why_not_triton(
    device: torch.device, dtype: torch.dtype, window: Size, head_dim: int
) -> str | None:
    """Return why the Triton kernels are not available, or None if they are."""
    if not has_triton():
        return "needs Triton and a C compiler"
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"needs a GPU, but the model is on {device}"
    if head_dim != TRITON_HEAD_DIM:
        return f"supports only {TRITON_HEAD_DIM} channels per head, got {head_dim}"
    if dtype not in TRITON_DTYPES:
        return f"supports only float32, float16 and bfloat16, got {dtype}"
    if window[1] > TRITON_WIDEST:
        return f"supports only windows up to {TRITON_WIDEST} tokens wide, got {window[1]}"
    return None


def has_triton() -> bool:
    """Return True if Triton and the C compiler that it needs to launch kernels are installed."""
    return _HAS_TRITON


def supports_bf16(device: torch.device) -> bool:
    """Return True if the GPU supports bfloat16 (Ampere or later)."""
    return torch.cuda.get_device_properties(device).major >= 8


def _has_compiler() -> bool:
    names = (os.environ.get("CC"), "cc", "gcc", "clang")
    return any(name and shutil.which(name) for name in names)


def _is_installed(name: str) -> bool:
    with suppress(ImportError):
        return importlib.util.find_spec(name) is not None
    return False


# Determined at import, because torch.compile cannot trace a search for files.
_HAS_TRITON = _is_installed("triton") and _has_compiler()
