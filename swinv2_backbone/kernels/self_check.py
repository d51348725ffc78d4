"""A kernel compares itself with the reference before it is trusted with a training."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from swinv2_backbone.attention import MAX_LOGIT_SCALE, window_attention
from swinv2_backbone.kernels.choose import LAYER_NORM_EPS, TRITON_HEAD_DIM
from swinv2_backbone.kernels.parameters import BlockParameters, shapes_of_parameters
from swinv2_backbone.position_bias import bias_of_offsets, offset_grid
from swinv2_backbone.windows import Partition, Size

Results = dict[str, Tensor]  # a result and the gradients of what it is made of, by name
Check = Callable[[Partition, torch.device, torch.dtype], tuple[Results, Results]]

Tolerances = dict[torch.dtype, float]

TOLERANCES: Tolerances = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
# PyTorch may be told to multiply float32 with the precision of half.
BLOCK_TOLERANCES: Tolerances = {torch.float32: 5e-2, torch.float16: 5e-2, torch.bfloat16: 1e-1}
_checked: dict[tuple[Check, torch.device, torch.dtype], bool] = {}


def check_once(
    check: Check, device: torch.device, dtype: torch.dtype, tolerances: Tolerances = TOLERANCES
) -> None:
    """Compare results with the reference, at the first use on a device in a dtype.

    A compiler or a driver that this was not tried with must not spoil a training unseen.
    (A graph of torch.compile never comes here.)

    Args:
        check: gives those of a kernel, and those of the reference in float64.
        tolerances: of the largest difference, relative to the largest number.

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
                thread.submit(_compare, check, partition, device, dtype, tolerances[dtype]).result()
    except BaseException:
        _checked[check, device, dtype] = False
        raise


def _compare(
    check: Check, partition: Partition, device: torch.device, dtype: torch.dtype, tolerance: float
) -> None:
    actual, expected = check(partition, device, dtype)
    for name, value in expected.items():
        error = ((actual[name].double() - value).abs().max() / value.abs().max()).item()
        if not error < tolerance:
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
    """Of a kernel that is called as ``triton_block.compute_block``."""

    def check(partition: Partition, device: torch.device, dtype: torch.dtype):
        channels, numbers = 2 * TRITON_HEAD_DIM, torch.Generator().manual_seed(0)
        given = [torch.randn(_tokens(partition), channels, generator=numbers)]
        weights = torch.randn(given[0].shape, generator=numbers).to(device)
        for shape in shapes_of_parameters(channels, heads=2):  # all of some effect
            spread = shape[-1] ** -0.5 if len(shape) == 2 else 0.2
            given.append(spread * torch.randn(shape, generator=numbers))
        given = [each.to(device, dtype) for each in given]
        results = []
        for function, own in ((compute, dtype), (_block_as_written, torch.float64)):
            leaves = [each.to(own, copy=True).requires_grad_() for each in given]
            p = BlockParameters(*leaves[1:])
            p = p._replace(logit_scale=p.logit_scale + 2)
            out = function(leaves[0], p, partition, partition.window)
            grads = torch.autograd.grad(out, leaves, weights.to(own))
            names = (f"the gradient of {name}" for name in ("x", *p._fields))
            results.append({"the result": out.detach()} | dict(zip(names, grads)))
        return tuple(results)

    return check


def _block_as_written(
    x: Tensor, p: BlockParameters, partition: Partition, pretrained: Size
) -> Tensor:
    """What a ``SwinV2Block`` gives up to its ``norm3``."""
    offsets = offset_grid(partition.window, pretrained, x.device, x.dtype)
    table = bias_of_offsets(offsets, p.cpb1, p.cpb1_bias, p.cpb2)
    qkv_bias = torch.cat((p.q_bias, torch.zeros_like(p.q_bias), p.v_bias))
    scale = p.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
    attended = window_attention(F.linear(x, p.qkv, qkv_bias), scale, table, partition)
    projected = F.linear(attended, p.proj, p.proj_bias)
    x = x + F.layer_norm(projected, x.shape[1:], p.norm1, p.norm1_bias, LAYER_NORM_EPS)
    mlp = F.linear(F.gelu(F.linear(x, p.fc1, p.fc1_bias)), p.fc2, p.fc2_bias)
    return x + F.layer_norm(mlp, x.shape[1:], p.norm2, p.norm2_bias, LAYER_NORM_EPS)


def _tokens(partition: Partition) -> int:
    return sum(map(prod, partition.sizes))
