"""Which of the ways to compute a block is taken: the one place that decides it.

- "reference": ``attention.window_attention`` and the modules of the block, as they are written.
- "tiles": the whole block strip by strip (strip_block.py).
- "triton": the whole block on a GPU, all but its matrix products as fused kernels
  (triton_block.py); where a layer inside was replaced, the attention alone (triton_attention.py).
- "auto": "tiles" on a CPU, "triton" on a GPU where Triton can be had, else "reference".

The environment variable SWINV2_KERNEL, read when a model is built, stands above what the model is
told: to find out whether a strange result comes from a kernel.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor, nn

from swinv2_backbone.attention import is_plain
from swinv2_backbone.position_bias import PositionBias
from swinv2_backbone.windows import Partition

KERNELS = ("auto", "reference", "tiles", "triton")
BY_MODULES = {"tiles": "reference", "triton": "triton attention"}  # where blocks are changed
VARIABLE = "SWINV2_KERNEL"
LAYER_NORM_EPS = 1e-5  # that of whole blocks
TRITON_HEAD_DIM = 32  # of every published model; the kernel is written for it alone
TRITON_WIDEST = 64  # tokens of a window in a row
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


def choose(kernel: str, x: Tensor, partition: Partition, block: nn.Module) -> str:
    """ "reference", "tiles", "triton" or "triton attention", for the tokens ``x`` of a block.

    A block with hooks inside, or with a layer that is not what the block was made of (quantised,
    parametrised, with an adapter), is computed by its modules: what computes a whole block would
    pass these by.  So is one that is traced or exported, as a trace is to show operators that
    others know.

    Raises:
        ValueError: the kernel that was asked for cannot be had.
    """
    if torch.jit.is_tracing() or is_exporting():
        return "reference"
    device = x.device.type
    if kernel == "auto":
        kernel = {"cpu": "tiles", "cuda": "triton"}.get(device, "reference")
        if kernel == "triton" and (why_not_triton(x, partition, block) or not _is_new(x.device)):
            return "reference"
    elif kernel == "triton" and (why := why_not_triton(x, partition, block)):
        raise ValueError(f"kernel 'triton' {why}: use kernel='auto'")
    elif kernel == "tiles" and device != "cpu":
        raise ValueError(
            f"kernel 'tiles' is for CPUs, the model is on {device}: use kernel='auto'"
        )
    if kernel in BY_MODULES and not _as_built(block):
        return BY_MODULES[kernel]
    if kernel == "triton" and type(block.attn.cpb_mlp) is not PositionBias:
        return BY_MODULES[kernel]  # strips take any bias as a table, fused blocks compute their own
    return kernel


def is_exporting() -> bool:
    """Whether torch.export traces; PyTorch up to 2.11 says so of torch.compile, too."""
    return torch.compiler.is_exporting() and getattr(torch.compiler, "_is_exporting_flag", True)


def why_not_triton(x: Tensor, partition: Partition, block: nn.Module) -> str | None:
    """Why the Triton kernel cannot be had; None if it can."""
    if not has_triton():
        return "needs Triton and a C compiler"
    if x.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"needs a GPU, the model is on {x.device}"
    if block.head_dim != TRITON_HEAD_DIM:
        return f"is for heads of {TRITON_HEAD_DIM} channels, got {block.head_dim}"
    if x.dtype not in TRITON_DTYPES:
        return f"is for float32, float16 and bfloat16, got {x.dtype}"
    if partition.window[1] > TRITON_WIDEST:
        return f"is for windows up to {TRITON_WIDEST} tokens wide, got {partition.window[1]}"
    return None


def has_triton() -> bool:
    """Whether Triton is there, and the compiler that it needs to call its kernels."""
    return _HAS_TRITON


def _has_compiler() -> bool:
    names = (os.environ.get("CC"), "cc", "gcc", "clang")
    return any(name and shutil.which(name) for name in names)


def _is_installed(name: str) -> bool:
    with suppress(ImportError):
        return importlib.util.find_spec(name) is not None
    return False


# Found out once and here, as torch.compile could not look for files.
_HAS_TRITON = _is_installed("triton") and _has_compiler()


def _is_new(device: torch.device) -> bool:
    """Whether a GPU multiplies bfloat16: NVIDIA's Ampere or later."""
    return torch.cuda.get_device_properties(device).major >= 8


def parts_of(block: nn.Module) -> list[type]:
    """The classes of all modules inside a block."""
    return [type(module) for module in _inside(block)]


def _inside(module: nn.Module) -> Iterator[nn.Module]:
    """As ``modules()`` without the module itself, in less time: once a block in every forward."""
    for child in module._modules.values():
        if child is not None:
            yield child
            yield from _inside(child)


def _as_built(block: nn.Module) -> bool:
    """Whether the modules inside ``block`` are those it was made of, and do no more than that."""
    parts = list(_inside(block))
    return (
        [type(module) for module in parts] == block.made_of
        and not torch.nn.modules.module._has_any_global_hook()
        and all(is_plain(module) for module in parts)
        and all(_has_parameters(module) for module in parts if isinstance(module, nn.LayerNorm))
    )


def _has_parameters(norm: nn.LayerNorm) -> bool:
    return norm.eps == LAYER_NORM_EPS and norm.weight is not None and norm.bias is not None
