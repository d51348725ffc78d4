"""Launching a Triton kernel in a third of the time.

Triton inspects every argument at every launch to find the compiled kernel, which takes longer than
most of our kernels run.  Here the lookup uses only the properties that differ between our calls.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

_compiled: dict[tuple[Any, ...], Any] = {}


def cdiv(a: int, b: int) -> int:
    """Return a / b, rounded up; Triton's function takes microseconds."""
    return -(-a // b)


def launch(
    kernel: triton.JITFunction,
    programs: int,
    tensors: tuple[Tensor, ...],
    numbers: tuple[int, ...],
    constants: tuple[int, ...] = (),
    *,
    num_warps: int = 4,
    num_stages: int = 1,
) -> None:
    """Run ``kernel(*tensors, *numbers, *constants)`` on the device of the first tensor.

    The compiled code must not depend on ``numbers``: they must be unspecialized, or all multiples
    of 16, and less than 2 ** 31.
    """
    device = tensors[0].device.index
    if device is not None and device != torch.cuda.current_device():
        with torch.cuda.device(device):
            return launch(
                kernel, programs, tensors, numbers, constants,
                num_warps=num_warps, num_stages=num_stages,
            )  # fmt: skip
    key = kernel, device, constants, num_warps, num_stages, *[t.dtype for t in tensors]
    compiled, aligned = _compiled.get(key), not any(t.data_ptr() % 16 for t in tensors)
    if compiled is not None and aligned:
        compiled[programs, 1, 1](*tensors, *numbers, *constants)
        return
    options = {"num_warps": num_warps, "num_stages": num_stages}
    compiled = kernel[programs,](*tensors, *numbers, *constants, **options)
    if aligned:  # compiled is None in the interpreter
        _compiled[key] = compiled
