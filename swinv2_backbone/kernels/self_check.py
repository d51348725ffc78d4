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

Results = dict[str, Tensor]  # a result and the gradients of what it is made of, by name
Check = Callable[[Partition, torch.device, torch.dtype], tuple[Results, Results]]

TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_checked: dict[tuple[Check, torch.device, torch.dtype], bool] = {}


def check_once(check: Check, device: torch.device, dtype: torch.dtype) -> None:
    """Compare results with the reference, at the first use on a device in a dtype.

    A compiler or a driver that this was not tried with must not spoil a training unseen.
    (A graph of torch.compile never comes here.)

    Args:
        check: gives those of a kernel, and those of the reference in float64.

    Raises:
        RuntimeError: they differ.
    """
    if _checked.get((check, device, dtype)):
        return
    _checked[check, device, dtype] = True  # while it runs, and if it succeeds
    try:
        # In a thread of its own, which knows nothing of autocast, inference mode, activation
        # checkpointing and whatever else surrounds the first use.
        with ThreadPoolExecutor(1) as thread:
            for window in (8, 12):  # of one tile, and of several
                sizes = ((window + 5, window + 3), (5, 9))
                partition = Partition(sizes, (window, window), True)
                thread.submit(_compare, check, partition, device, dtype).result()
    except BaseException:
        _checked[check, device, dtype] = False
        raise


def _compare(check: Check, partition: Partition, device: torch.device, dtype: torch.dtype) -> None:
    actual, expected = check(partition, device, dtype)
    for name, value in expected.items():
        error = ((actual[name].double() - value).abs().max() / value.abs().max()).item()
        if not error < TOLERANCES[dtype]:
            raise RuntimeError(
                f"the Triton kernels are wrong on {device} in {dtype}: {name} is off by "
                f"{error:.1e} of the largest number; build the model with kernel='reference', and "
                "please report it with the versions of torch, Triton and the driver"
            )


def check_of_attention(kernel: Callable[..., Tensor]) -> Check:
    """Of a kernel that is called as ``triton_window_attention``."""

    def attend_by_kernel(qkv: Tensor, scale: Tensor, table: Tensor, partition: Partition) -> Tensor:
        return kernel(qkv, scale, table, *partition)

    def check(partition: Partition, device: torch.device, dtype: torch.dtype):
        numbers = torch.Generator().manual_seed(0)
        tokens, offsets = _tokens(partition), prod(2 * length - 1 for length in partition.window)
        qkv = torch.randn(tokens, 2 * 3 * TRITON_HEAD_DIM, generator=numbers)
        scale = torch.tensor([10.0, 100.0]).view(2, 1, 1)
        given = (qkv.to(dtype), scale, 16 * torch.rand(2, offsets, generator=numbers))
        weights = torch.randn(tokens, 2 * TRITON_HEAD_DIM, generator=numbers).to(device)
        results = []
        for attend, exact in ((attend_by_kernel, False), (window_attention, True)):
            precise = torch.float64 if exact else torch.float32
            dtypes = (precise if exact else dtype, precise, precise)
            leaves = [x.to(device, own).requires_grad_() for x, own in zip(given, dtypes)]
            out = attend(*leaves, partition)
            grads = torch.autograd.grad(out, leaves, weights.to(out.dtype))
            names = (f"the gradient of {name}" for name in ("qkv", "scale", "table"))
            results.append({"the result": out.detach()} | dict(zip(names, grads)))
        return tuple(results)

    return check


def check_of_block(compute: Callable[..., Tensor]) -> Check:
    """Of what is called as ``triton_block.fused_block``."""

    def check(partition: Partition, device: torch.device, dtype: torch.dtype):
        from swinv2_backbone.block import SwinV2Block  # which is above the kernels

        channels, numbers = 2 * TRITON_HEAD_DIM, torch.Generator().manual_seed(0)
        x = torch.randn(_tokens(partition), channels, generator=numbers)
        weights = torch.randn(x.shape, generator=numbers).to(device)
        with torch.device("meta"):  # which draws no numbers, that would be missing in a training
            block = SwinV2Block(channels, 2, pretrained_window=partition.window, kernel="reference")
        block.to_empty(device="cpu")
        for parameter in block.parameters():  # all of some effect
            spread = 0.2 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5
            parameter.data = spread * torch.randn(parameter.shape, generator=numbers)
        block.attn.logit_scale.data += 2
        results = []
        for own in (dtype, torch.float64):
            block = block.to(device, own)
            leaves = {"x": x.to(device, own).requires_grad_(), **dict(block.named_parameters())}
            exact = own == torch.float64
            out = block(leaves["x"], partition) if exact else compute(block, leaves["x"], partition)
            grads = torch.autograd.grad(out, list(leaves.values()), weights.to(own))
            names = (f"the gradient of {name}" for name in leaves)
            results.append({"the result": out.detach()} | dict(zip(names, grads)))
        return tuple(results)

    return check


def _tokens(partition: Partition) -> int:
    return sum(map(prod, partition.sizes))
