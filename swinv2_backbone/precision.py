"""Dtypes of the computations that need more than half precision."""

from __future__ import annotations

import torch


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the accumulation dtype: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def evaluation_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype used to evaluate the position bias: float64 where the device has it.

    The order of summation in a product depends on the size of the table.  In float64, which is
    cheap here, the difference is far below the last bit of the float32 result.
    """
    return dtype if device.type == "mps" else torch.float64  # mps has no float64
