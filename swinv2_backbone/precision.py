"""Dtypes of the computations that need more than half precision, or that are faster in float32."""

from __future__ import annotations

import platform
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

X86 = platform.machine() in ("x86_64", "AMD64")


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the accumulation dtype: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def evaluation_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype used to evaluate the position bias: float64 where the device has it.

    The order of summation in a product depends on the size of the table.  In float64, which is
    cheap here, the difference is far below the last bit of the float32 result.
    """
    return dtype if device.type == "mps" else torch.float64  # mps has no float64


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return float32 for bfloat16 if the CPU can only emulate its products, else ``dtype``.

    Products of bfloat16 then take 3 times as long as those of float32, or more.
    """
    return torch.float32 if dtype == torch.bfloat16 and not supports_bf16() else dtype


@cache
def supports_bf16() -> bool:
    """Return True if the CPU has products of bfloat16, and oneDNN uses them.

    oneDNN's own check is also True for processors with AVX-512 that have none, where it emulates
    them.  Processors other than x86 are not asked.
    """
    return not X86 or (
        torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        and torch.cpu._is_avx512_bf16_supported()
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply ``F.linear``, in the dtype of :func:`compute_dtype` on a CPU.

    A graph that is compiled, traced or exported does not depend on this processor.
    """
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    mixed = torch.is_autocast_enabled("cpu") and x.dtype != torch.float64
    dtype = torch.get_autocast_dtype("cpu") if mixed else x.dtype
    takes = mixed or weight.dtype == dtype  # otherwise F.linear raises an error
    if x.device.type != "cpu" or compute_dtype(dtype) == dtype or not takes:
        return F.linear(x, weight, bias)
    with torch.autocast("cpu", enabled=False):
        bias = bias if bias is None else bias.float()
        return F.linear(x.float(), weight.float(), bias).to(dtype)
