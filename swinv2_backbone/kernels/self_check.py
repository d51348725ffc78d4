"""A kernel compares itself with the reference before it is trusted with a training."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import prod

import torch
from torch import Tensor

from swinv2_backbone.attention import window_attention
from swinv2_backbone.kernels.choice import TRITON_HEAD_DIM
from swinv2_backbone.windows import Partition

TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_checked: dict[tuple[torch.device, torch.dtype], bool] = {}


def check_once(kernel: Callable[..., Tensor], device: torch.device, dtype: torch.dtype) -> None:
    """Compare result and gradients with the reference, at the first use on a device in a dtype.

    A compiler or a driver that this was not tried with must not spoil a training unseen.
    (A graph of torch.compile never comes here.)

    Args:
        kernel: called as ``triton_window_attention``.

    Raises:
        RuntimeError: they differ.
    """
    if _checked.get((device, dtype)):
        return
    _checked[device, dtype] = True  # while it runs, and if it succeeds
    try:
        # In a thread of its own, which knows nothing of autocast, inference mode, activation
        # checkpointing and whatever else surrounds the first use.
        with ThreadPoolExecutor(1) as thread:
            for window in (8, 12):  # of one tile, and of several
                sizes = ((window + 5, window + 3), (5, 9))
                partition = Partition(sizes, (window, window), True)
                thread.submit(_check, kernel, partition, device, dtype).result()
    except BaseException:
        _checked[device, dtype] = False
        raise


def _check(
    kernel: Callable[..., Tensor], partition: Partition, device: torch.device, dtype: torch.dtype
) -> None:
    def attend_by_kernel(qkv: Tensor, scale: Tensor, table: Tensor, partition: Partition) -> Tensor:
        return kernel(qkv, scale, table, *partition)

    numbers = torch.Generator().manual_seed(0)
    offsets = prod(2 * length - 1 for length in partition.window)
    qkv = torch.randn(sum(map(prod, partition.sizes)), 2 * 3 * TRITON_HEAD_DIM, generator=numbers)
    scale = torch.tensor([10.0, 100.0]).view(2, 1, 1)
    given = (qkv.to(dtype), scale, 16 * torch.rand(2, offsets, generator=numbers))
    weights = torch.randn(len(qkv), 2 * TRITON_HEAD_DIM, generator=numbers).to(device)
    results = []
    for attend, exact in ((attend_by_kernel, False), (window_attention, True)):
        precise = torch.float64 if exact else torch.float32
        dtypes = (precise if exact else dtype, precise, precise)
        leaves = [x.to(device, own).requires_grad_() for x, own in zip(given, dtypes)]
        out = attend(*leaves, partition)
        grads = torch.autograd.grad(out, leaves, weights.to(out.dtype))
        results.append([each.double() for each in (out, *grads)])
    for name, actual, expected in zip(("result", "qkv", "scale", "table"), *results):
        error = ((actual - expected).abs().max() / expected.abs().max()).item()
        if not error < TOLERANCES[dtype]:
            what = name if name == "result" else f"gradient of {name}"
            raise RuntimeError(
                f"the Triton kernel is wrong on {device} in {dtype}: its {what} is off by "
                f"{error:.1e} of the largest number; build the model with kernel='reference', and "
                "please report it with the versions of torch, Triton and the driver"
            )
