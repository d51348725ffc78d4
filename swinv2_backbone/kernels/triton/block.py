"""A whole SwinV2 block on a GPU: four matrix products with fused kernels around them.

In the forward, attention is one kernel (attention.py), and so is each norm with its residual
(rows.py).  The block has its own backward and takes its parameters unprepared: a fast GPU would
wait for Python and autograd most of the time, so both are avoided where possible.  It saves the
activations that its backward reads, and none twice.

Under autocast the matrix products are in half precision; tokens, norms and residuals are in
float32, as with the modules.

To torch.compile the block is one opaque operator, ``torch.ops.swinv2.triton_block``.

Legend: T tokens of the whole batch, packed; C channels; nH heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from swinv2_backbone.kernels.operator import Operator
from swinv2_backbone.kernels.parameters import BlockParameters
from swinv2_backbone.kernels.self_check import BLOCK_TOLERANCES, check_of_block, check_once
from swinv2_backbone.kernels.triton import attention
from swinv2_backbone.kernels.triton.fused import (
    UNROUNDED,
    Activations,
    Constants,
    FusedBlock,
    Geometry,
    prepare,
)
from swinv2_backbone.packing import Size, flat_sizes
from swinv2_backbone.position_bias import BiasParameters
from swinv2_backbone.windows import Partition


class Arguments(NamedTuple):
    """The arguments of ``torch.ops.swinv2.triton_block``."""

    x: Tensor  # (T, C)
    parameters: list[Tensor]  # BlockParameters
    bias: list[Tensor]  # BiasParameters
    drop_path: list[Tensor]  # empty, or the drop path scales of both branches, (T, 1) each
    sizes: list[int]  # height and width of each map in turn
    window: list[int]  # (Mh, Mw)
    shifted: bool
    square_small_maps: bool
    pretrained: list[int]  # the pretrained window of the position bias
    dtype: torch.dtype  # of the matrix products
    save_activations: bool  # False: the backward recomputes them from x

    def geometry(self) -> Geometry:
        """Return the windows of the attention."""
        own = self.sizes, self.window, self.shifted, self.square_small_maps
        return Geometry(*own, self.pretrained)


def fused_block(
    x: Tensor,
    parameters: BlockParameters,
    bias: BiasParameters,
    pretrained: Size,
    table: Callable[[Size], Tensor],
    drop_path: Sequence[Tensor],
    partition: Partition,
    *,
    save_activations: bool,
) -> Tensor:
    """Compute a SwinV2 block up to its ``norm3``, (T, C) -> (T, C).

    Args:
        x: the packed tokens.
        parameters, bias: parameters of the block and of its position bias.
        pretrained: the pretrained window of the position bias.
        table: window -> the position bias, which may be cached; called if no gradient is needed.
        drop_path: empty, or the per-token drop path scales of both branches, (T, 1) each.
        partition: the windows.
        save_activations: save the activations for the backward pass, which otherwise recomputes
            them.
    """
    device, dtype = x.device.type, x.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    compiling = torch.compiler.is_compiling()
    if x.is_cuda and not compiling:
        check_once(attention.CHECK, x.device, dtype)
        check_once(CHECK, x.device, dtype, BLOCK_TOLERANCES)
    leaves = (x, *parameters, *bias)
    learning = torch.is_grad_enabled() and any(t.requires_grad for t in leaves)
    arguments = _arguments(x, parameters, bias, pretrained, drop_path, partition, dtype)
    arguments = arguments._replace(save_activations=learning and save_activations)
    if compiling or type(x) is not Tensor:  # such as a FakeTensor
        return OPERATOR(arguments)[0]
    if learning:
        return OPERATOR.differentiable(arguments)
    return _forward(arguments, table(partition.window))[0]


def compute_block(
    x: Tensor,
    parameters: BlockParameters,
    bias: BiasParameters,
    partition: Partition,
    pretrained: Size,
) -> Tensor:
    """Compute a block from its parameters alone, in the dtype of ``x``."""
    arguments = _arguments(x, parameters, bias, pretrained, [], partition, x.dtype)
    return OPERATOR.differentiable(arguments._replace(save_activations=True))


def _arguments(
    x: Tensor,
    parameters: BlockParameters,
    bias: BiasParameters,
    pretrained: Size,
    drop_path: Sequence[Tensor],
    partition: Partition,
    dtype: torch.dtype,
) -> Arguments:
    return Arguments(
        x.contiguous(),
        list(parameters),
        list(bias),
        list(drop_path),
        flat_sizes(partition.sizes),
        list(partition.window),
        partition.shifted,
        partition.square_small_maps,
        list(pretrained),
        dtype,
        save_activations=False,
    )


def _forward(a: Arguments, table: Tensor | None = None) -> list[Tensor]:
    """Return the block's output (T, C) and, if activations are saved, constants and activations.

    These omit the tensors that the backward receives anyway: ``x`` and the parameters, unless they
    had to be rounded.
    """
    p, bias, geometry = BlockParameters(*a.parameters), BiasParameters(*a.bias), a.geometry()
    constants = prepare(p, bias, table, geometry, a.dtype)
    block = FusedBlock(p, bias, constants, a.drop_path, geometry, a.dtype)
    if not a.save_activations:
        return [block(a.x)]
    out, saved = block.with_activations(a.x)
    computed = constants if constants.qkv is not p.qkv else constants[: -len(UNROUNDED)]
    return [out, *computed, *(saved if saved.x is not a.x else saved[1:])]


def _backward(grad: Tensor, saved: Sequence[Tensor], a: Arguments) -> list[Tensor]:
    """Return the gradients of ``x`` and the parameters.

    ``saved`` holds the results of :func:`_forward` after the output; if empty, they are recomputed.
    """
    p, bias, geometry = BlockParameters(*a.parameters), BiasParameters(*a.bias), a.geometry()
    if saved:
        own = [] if p.qkv.dtype != a.dtype else [getattr(p, name) for name in UNROUNDED]
        computed = len(Constants._fields) - len(own)
        constants = Constants(*saved[:computed], *own)
        activations = Activations(*([a.x, *saved[computed:]][-len(Activations._fields) :]))
        block = FusedBlock(p, bias, constants, a.drop_path, geometry, a.dtype)
    else:
        constants = prepare(p, bias, None, geometry, a.dtype)
        block = FusedBlock(p, bias, constants, a.drop_path, geometry, a.dtype)
        activations = block.with_activations(a.x)[1]
    grad_x, by_parameters, by_bias = block.backward(grad.contiguous(), activations)
    leaves = [*a.parameters, *a.bias]
    return [grad_x, *_as_dtypes_of(leaves, [*by_parameters, *by_bias])]


def _as_dtypes_of(parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
    """Convert all gradients to the dtypes of the parameters, in one launch."""
    found, targets, sources = list(gradients), [], []
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients)):
        if gradient.dtype != parameter.dtype or not gradient.is_contiguous():
            found[i] = torch.empty_like(parameter)
            targets.append(found[i])
            sources.append(gradient)
    if targets:
        torch._foreach_copy_(targets, sources)
    return found


def _arguments_to_save(a: Arguments, saved: Sequence[Tensor]) -> Arguments:
    """Drop ``x`` if its rounded copy is among the activations."""
    return a._replace(x=a.x.new_empty(0)) if saved and a.dtype != a.x.dtype else a


def _empty_results(a: Arguments) -> list[Tensor]:
    if not a.save_activations:
        return [torch.empty_like(a.x)]
    x, dtype, p = a.x, a.dtype, BlockParameters(*a.parameters)
    (tokens, channels), heads, hidden = x.shape, p.logit_scale.numel(), p.fc1.shape[0]
    offsets = (2 * a.window[0] - 1) * (2 * a.window[1] - 1)
    computed = [x.new_empty(heads, dtype=torch.float32)]
    computed.append(x.new_empty(heads, offsets, dtype=torch.float32))
    computed.append(x.new_empty(3 * channels, dtype=dtype))
    if p.qkv.dtype != dtype:
        computed += [torch.empty_like(getattr(p, name), dtype=dtype) for name in UNROUNDED]
    row = x.new_empty(tokens, channels, dtype=dtype)
    saved = Activations(
        x=row,
        qkv=x.new_empty(tokens, 3 * channels, dtype=dtype),
        attended=torch.empty_like(row),
        log_sum_exp=x.new_empty(tokens, heads, dtype=torch.float32),
        projected=torch.empty_like(row),
        middle=torch.empty_like(row),
        hidden=x.new_empty(tokens, hidden, dtype=dtype),
        mlp=torch.empty_like(row),
    )
    return [torch.empty_like(x), *computed, *(saved if dtype != x.dtype else saved[1:])]


def _empty_gradients(grad: Tensor, a: Arguments) -> list[Tensor]:
    # grad takes the place of x, which may have been dropped.
    return [
        torch.empty_like(each, memory_format=torch.contiguous_format)
        for each in (grad, *a.parameters, *a.bias)
    ]


OPERATOR = Operator(
    "triton_block",
    Arguments,
    learned=("x", "parameters", "bias"),
    forward=_forward,
    backward=_backward,
    empty_results=_empty_results,
    empty_gradients=_empty_gradients,
    to_save=_arguments_to_save,
)
CHECK = check_of_block(compute_block)
