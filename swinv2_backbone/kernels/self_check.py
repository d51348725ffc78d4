"""Comparison of a kernel with the reference before its first use."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from swinv2_backbone.attention import Attend, exp_logit_scale, join_qkv_bias, window_attention
from swinv2_backbone.kernels.choose import TRITON_HEAD_DIM
from swinv2_backbone.kernels.parameters import LAYER_NORM_EPS, BlockParameters, parameter_shapes
from swinv2_backbone.packing import Size
from swinv2_backbone.position_bias import HIDDEN, BiasParameters, bias_of_offsets, offset_grid
from swinv2_backbone.windows import Partition

Results = dict[str, Tensor]  # a result and the gradients of its inputs, by name
Check = Callable[[Partition, torch.device, torch.dtype], tuple[Results, Results]]
# (x, parameters, parameters of the bias, partition, pretrained window) -> (T, C)
ComputeBlock = Callable[[Tensor, BlockParameters, BiasParameters, Partition, Size], Tensor]

Tolerances = dict[torch.dtype, float]

TOLERANCES: Tolerances = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
# PyTorch may be configured to multiply float32 matrices in lower precision.
BLOCK_TOLERANCES: Tolerances = {torch.float32: 5e-2, torch.float16: 5e-2, torch.bfloat16: 1e-1}
_checked: dict[tuple[Check, torch.device, torch.dtype], bool] = {}


def check_once(
    check: Check, device: torch.device, dtype: torch.dtype, tolerances: Tolerances = TOLERANCES
) -> None:
    """Compare a kernel with the reference before its first use with a device and dtype.

    This detects wrong results from a compiler or driver that the kernels were not tested with.
    (Graphs of torch.compile are not checked.)

    Args:
        check: function that returns the results of a kernel and those of the reference in float64.
        device, dtype: device and dtype of the first use.
        tolerances: limits of the largest difference, relative to the largest value.

    Raises:
        RuntimeError: the results differ.
    """
    if _checked.get((check, device, dtype)):
        return
    _checked[check, device, dtype] = True  # set first, because the check itself uses the kernel
    try:
        # A separate thread inherits none of the caller's contexts: autocast, inference mode,
        # activation checkpointing.
        with ThreadPoolExecutor(1) as thread:
            for window in (8, 12):  # one block of queries, and several
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
                f"{error:.1e} of the largest value; build the model with kernel='reference', and "
                "please report this with the versions of torch, Triton and the driver"
            )


def check_of_attention(attend: Attend) -> Check:
    """Return the check for an implementation of ``attention.window_attention``."""

    def check(
        partition: Partition, device: torch.device, dtype: torch.dtype
    ) -> tuple[Results, Results]:
        numbers = torch.Generator().manual_seed(0)
        tokens, offsets = _tokens(partition), prod(2 * length - 1 for length in partition.window)
        qkv = torch.randn(tokens, 2 * 3 * TRITON_HEAD_DIM, generator=numbers)
        scale = torch.tensor([10.0, 100.0]).view(2, 1, 1)
        given = (qkv.to(dtype), scale, 16 * torch.rand(2, offsets, generator=numbers))
        weights = torch.randn(tokens, 2 * TRITON_HEAD_DIM, generator=numbers).to(device)

        def results(attend: Attend, dtypes: tuple[torch.dtype, ...]) -> Results:
            leaves = [x.to(device, own).requires_grad_() for x, own in zip(given, dtypes)]
            out = attend(leaves[0], leaves[1], leaves[2], partition)
            return _with_gradients(out, leaves, weights, ("qkv", "scale", "table"))

        single, double = torch.float32, torch.float64
        actual = results(attend, (dtype, single, single))
        return actual, results(window_attention, (double, double, double))

    return check


def check_of_block(compute: ComputeBlock) -> Check:
    """Return the check for an implementation of a whole block."""

    def check(
        partition: Partition, device: torch.device, dtype: torch.dtype
    ) -> tuple[Results, Results]:
        channels, numbers = 2 * TRITON_HEAD_DIM, torch.Generator().manual_seed(0)
        x = torch.randn(_tokens(partition), channels, generator=numbers)
        weights = torch.randn(x.shape, generator=numbers).to(device)
        shapes = parameter_shapes(channels, heads=2)
        shapes |= {"weight1": (HIDDEN, 2), "bias1": (HIDDEN,), "weight2": (2, HIDDEN)}
        given = [x, *(_telling(shape, numbers) for shape in shapes.values())]
        given = [each.to(device, dtype) for each in given]

        def results(compute: ComputeBlock, dtype: torch.dtype) -> Results:
            leaves = [each.to(dtype, copy=True).requires_grad_() for each in given]
            parameters, bias = BlockParameters(*leaves[1:-3]), BiasParameters(*leaves[-3:])
            parameters = parameters._replace(logit_scale=parameters.logit_scale + 2)
            out = compute(leaves[0], parameters, bias, partition, partition.window)
            return _with_gradients(out, leaves, weights, ("x", *shapes))

        return results(compute, dtype), results(_reference_block, torch.float64)

    return check


def _telling(shape: tuple[int, ...], numbers: torch.Generator) -> Tensor:
    """Draw a parameter that is large enough to affect the result."""
    spread = shape[-1] ** -0.5 if len(shape) == 2 else 0.2
    return spread * torch.randn(shape, generator=numbers)


def _with_gradients(
    out: Tensor, leaves: list[Tensor], weights: Tensor, names: tuple[str, ...]
) -> Results:
    grads = torch.autograd.grad(out, leaves, weights.to(out.dtype))
    return {"the result": out.detach()} | {
        f"the gradient of {name}": grad for name, grad in zip(names, grads)
    }


def _reference_block(
    x: Tensor, p: BlockParameters, bias: BiasParameters, partition: Partition, pretrained: Size
) -> Tensor:
    """Compute a ``SwinV2Block`` up to its ``norm3``."""
    table = bias_of_offsets(offset_grid(partition.window, pretrained, x.device, x.dtype), bias)
    qkv = F.linear(x, p.qkv, join_qkv_bias(p.q_bias, p.v_bias))
    attended = window_attention(qkv, exp_logit_scale(p.logit_scale), table, partition)
    projected = F.linear(attended, p.proj, p.proj_bias)
    x = x + F.layer_norm(projected, x.shape[1:], p.norm1, p.norm1_bias, LAYER_NORM_EPS)
    mlp = F.linear(F.gelu(F.linear(x, p.fc1, p.fc1_bias)), p.fc2, p.fc2_bias)
    return x + F.layer_norm(mlp, x.shape[1:], p.norm2, p.norm2_bias, LAYER_NORM_EPS)


def _tokens(partition: Partition) -> int:
    return sum(map(prod, partition.sizes))
