"""A whole SwinV2 block on a GPU: four matrix products, and between them nothing but fused kernels.

Attention is one kernel (triton_attention.py), so is each norm with its residual (triton_rows.py).
The block has a backward of its own, and all its parameters as they are: a GPU that multiplies fast
waits for Python and autograd most of the time, so they are left out wherever they can be.  Of
activations it keeps what its backward reads, and nothing twice.

Under autocast products are in half precision, and tokens, norms and residuals in float32, as the
modules have it.

To torch.compile the block is one opaque operator, ``torch.ops.swinv2.triton_block``.

Legend: T tokens of the whole batch, packed; C channels; nH heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinv2_backbone.kernels.parameters import BlockParameters, parameters_of
from swinv2_backbone.kernels.self_check import BLOCK_TOLERANCES, check_of_block, check_once
from swinv2_backbone.kernels.triton import attention as triton_attention
from swinv2_backbone.kernels.triton.attention import attention, attention_backward
from swinv2_backbone.kernels.triton.parameters import (
    bias_table,
    scale_and_qkv_bias,
    small_gradients,
)
from swinv2_backbone.kernels.triton.rows import add_norm, add_norm_backward, gelu_backward
from swinv2_backbone.windows import Partition, Size


class Geometry(NamedTuple):
    """Of a block's attention, as an operator takes it."""

    sizes: list[int]  # height and width of every map, one after the other
    window: list[int]  # (Mh, Mw)
    shifted: bool
    pretrained: list[int]  # the window that normalises the offsets of the bias


def geometry_of(partition: Partition, pretrained: Size) -> Geometry:
    sizes = [length for size in partition.sizes for length in size]
    return Geometry(sizes, list(partition.window), partition.shifted, list(pretrained))


class Activations(NamedTuple):
    """What the backward of a block reads, (T, C) each but for three; in the dtype of the products.

    ``x`` and ``middle`` are the inputs of the two branches.
    """

    x: Tensor
    qkv: Tensor  # (T, 3C)
    attended: Tensor
    log_sum_exp: Tensor  # (T, nH) float32
    projected: Tensor
    middle: Tensor
    hidden: Tensor  # (T, 4C), before GELU
    mlp: Tensor


class Constants(NamedTuple):
    """What is made of a block's parameters before its forward, and read again in its backward."""

    scale: Tensor  # (nH,) float32
    table: Tensor  # (nH, offsets of the window) float32, the position bias
    qkv_bias: Tensor  # (3C,); this and the next in the dtype of the products
    qkv: Tensor
    proj: Tensor
    proj_bias: Tensor
    fc1: Tensor
    fc1_bias: Tensor
    fc2: Tensor
    fc2_bias: Tensor


PARAMETERS = Constants._fields[3:]  # those that are parameters, where these need no rounding


def constants_of(
    p: BlockParameters, table: Tensor | None, geometry: Geometry, dtype: torch.dtype
) -> Constants:
    """``table``: if it is known."""
    scale, qkv_bias = scale_and_qkv_bias(p, dtype)
    if table is None:
        table = bias_table(p, tuple(geometry.window), tuple(geometry.pretrained))
    own = [getattr(p, name) for name in PARAMETERS]
    if p.qkv.dtype != dtype:
        rounded = [torch.empty_like(one, dtype=dtype) for one in own]
        torch._foreach_copy_(rounded, own)
        own = rounded
    return Constants(scale, table, qkv_bias, *own)


class _Block:
    """A block in one forward or backward.

    Args:
        parameters: those of the block.
        constants: made of them.
        keep: nothing, or what the two branches of every token are multiplied by, (T, 1) each.
        geometry: of the attention.
        dtype: of the matrix products.
    """

    def __init__(
        self,
        parameters: BlockParameters,
        constants: Constants,
        keep: Sequence[Tensor],
        geometry: Geometry,
        dtype: torch.dtype,
    ):
        self.parameters, self.constants = parameters, constants
        self.keep1, self.keep2 = keep or (None, None)
        self.partition, self.pretrained = geometry[:3], geometry.pretrained
        self.dtype = dtype

    def __call__(self, x: Tensor) -> Tensor:
        """(T, C) -> (T, C)."""
        w, p = self.constants, self.parameters
        qkv = F.linear(x.to(self.dtype), w.qkv, w.qkv_bias)
        attended, _ = attention(qkv, w.scale, w.table, *self.partition)
        del qkv
        projected = F.linear(attended, w.proj, w.proj_bias)
        del attended
        x, rounded = add_norm(x, projected, p.norm1, p.norm1_bias, self.keep1, self.dtype)
        del projected
        hidden = torch.ops.aten.gelu_(F.linear(rounded, w.fc1, w.fc1_bias))
        mlp = F.linear(hidden, w.fc2, w.fc2_bias)
        return add_norm(x, mlp, p.norm2, p.norm2_bias, self.keep2)[0]

    def with_activations(self, x: Tensor) -> tuple[Tensor, Activations]:
        """(T, C) -> (T, C), and what was met on the way."""
        w, p = self.constants, self.parameters
        rounded = x.to(self.dtype)
        qkv = F.linear(rounded, w.qkv, w.qkv_bias)
        attended, lse = attention(qkv, w.scale, w.table, *self.partition)
        projected = F.linear(attended, w.proj, w.proj_bias)
        x, middle = add_norm(x, projected, p.norm1, p.norm1_bias, self.keep1, self.dtype)
        hidden = F.linear(middle, w.fc1, w.fc1_bias)
        mlp = F.linear(F.gelu(hidden), w.fc2, w.fc2_bias)
        x, _ = add_norm(x, mlp, p.norm2, p.norm2_bias, self.keep2)
        met = Activations(rounded, qkv, attended, lse, projected, middle, hidden, mlp)
        return x, met

    def backward(self, grad: Tensor, met: Activations) -> tuple[Tensor, BlockParameters]:
        """The gradients of ``x`` and of all parameters, these in any dtype."""
        w, p = self.constants, self.parameters
        by_norm2 = add_norm_backward(grad, None, met.mlp, p.norm2, self.keep2)
        grad_hidden = by_norm2.branch @ w.fc2
        activated, by_fc1_bias = gelu_backward(met.hidden, grad_hidden)
        by_fc2 = by_norm2.branch.mT @ activated
        del activated
        grad_middle, by_fc1 = grad_hidden @ w.fc1, grad_hidden.mT @ met.middle
        del grad_hidden
        by_norm1 = add_norm_backward(grad, grad_middle, met.projected, p.norm1, self.keep1)
        del grad_middle
        grad_attended = by_norm1.branch @ w.proj
        by_proj = by_norm1.branch.mT @ met.attended
        grad_qkv, by_scale, by_table = attention_backward(
            grad_attended, met.qkv, w.scale, w.table, met.attended, met.log_sum_exp,
            *self.partition,
        )  # fmt: skip
        del grad_attended
        by_qkv, by_qkv_bias = grad_qkv.mT @ met.x, grad_qkv.sum(0, dtype=torch.float32)
        grad_x = by_norm1.x.add_(grad_qkv @ w.qkv)
        window, pretrained = tuple(self.partition[1]), tuple(self.pretrained)
        by_others = small_gradients(by_table, by_scale, p, window, pretrained)
        channels = len(p.q_bias)
        return grad_x, BlockParameters(
            by_qkv, by_qkv_bias[:channels], by_qkv_bias[2 * channels :],
            by_proj, by_norm1.branch_sum, by_norm1.weight, by_norm1.bias,
            by_fc1, by_fc1_bias, by_fc2, by_norm2.branch_sum, by_norm2.weight, by_norm2.bias,
            *by_others,
        )  # fmt: skip


def _forward(
    x: Tensor,
    parameters: Sequence[Tensor],
    table: Tensor | None,
    keep: Sequence[Tensor],
    geometry: Geometry,
    dtype: torch.dtype,
    keep_activations: bool,
) -> list[Tensor]:
    """The block's output (T, C) and, if they are kept for the backward, constants and activations.

    Not among these is what is given: ``x`` and parameters, unless they had to be rounded.
    """
    p = BlockParameters(*parameters)
    constants = constants_of(p, table, geometry, dtype)
    block = _Block(p, constants, keep, geometry, dtype)
    if not keep_activations:
        return [block(x)]
    out, met = block.with_activations(x)
    made = constants if constants.qkv is not p.qkv else constants[: -len(PARAMETERS)]
    return [out, *made, *(met if met.x is not x else met[1:])]


def _backward(
    grad: Tensor,
    x: Tensor,
    kept: Sequence[Tensor],
    parameters: Sequence[Tensor],
    keep: Sequence[Tensor],
    geometry: Geometry,
    dtype: torch.dtype,
) -> list[Tensor]:
    """The gradients of ``x`` and ``parameters`` of :func:`_forward`.

    ``kept`` is what that gave beside its output, or nothing: then it is computed again.
    """
    p = BlockParameters(*parameters)
    if not kept:
        constants = constants_of(p, None, geometry, dtype)
        block = _Block(p, constants, keep, geometry, dtype)
        met = block.with_activations(x)[1]
    else:
        own = [] if p.qkv.dtype != dtype else [getattr(p, name) for name in PARAMETERS]
        made = len(Constants._fields) - len(own)
        block = _Block(p, Constants(*kept[:made], *own), keep, geometry, dtype)
        met = Activations(*([x, *kept[made:]][-len(Activations._fields) :]))
    grad_x, by_parameters = block.backward(grad.contiguous(), met)
    return [grad_x, *_as_dtypes_of(parameters, by_parameters)]


def _as_dtypes_of(parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
    """All gradients in the dtypes of the parameters, in one launch."""
    found, other = list(gradients), []
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients)):
        if gradient.dtype != parameter.dtype or not gradient.is_contiguous():
            found[i] = torch.empty_like(parameter)
            other.append((found[i], gradient))
    if other:
        torch._foreach_copy_(*map(list, zip(*other)))
    return found


class _FusedBlock(torch.autograd.Function):
    """:func:`_forward` and :func:`_backward`, called directly."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        keep: Sequence[Tensor],
        geometry: Geometry,
        dtype: torch.dtype,
        keep_activations: bool,
        *parameters: Tensor,
    ) -> Tensor:
        out, *kept = _forward(x, parameters, None, keep, geometry, dtype, keep_activations)
        ctx.geometry, ctx.dtype = geometry, dtype
        _save(ctx, x, parameters, keep, kept)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, parameters, keep, kept = _saved(ctx)
        given = x, kept, parameters, keep
        if torch.is_grad_enabled():  # for a second derivative, which the operator refuses
            grads = torch.ops.swinv2.triton_block_backward(grad, *given, *ctx.geometry, ctx.dtype)
        else:
            grads = _backward(grad, *given, ctx.geometry, ctx.dtype)
        return grads[0], None, None, None, None, *grads[1:]


def _save(ctx: Any, x: Tensor, parameters: Sequence, keep: Sequence, kept: Sequence) -> None:
    if kept and ctx.dtype != x.dtype:  # x, rounded, is among them
        x = x.new_empty(0)
    ctx.lengths = len(parameters), len(keep)
    ctx.save_for_backward(x, *parameters, *keep, *kept)


def _saved(ctx: Any) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    """x, parameters, keep and kept."""
    x, *rest = ctx.saved_tensors
    first, second = ctx.lengths[0], sum(ctx.lengths)
    return x, rest[:first], rest[first:second], rest[second:]


def fused_block(
    block: nn.Module, x: Tensor, partition: Partition, keep_activations: bool
) -> Tensor:
    """(T, C) -> (T, C), what the modules of a ``SwinV2Block`` give up to its ``norm3``.

    ``keep_activations``: for the backward pass; else it computes them again.
    """
    device, dtype = x.device.type, x.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    compiling, parameters = torch.compiler.is_compiling(), parameters_of(block)
    if x.is_cuda and not compiling:
        check_once(triton_attention.CHECK, x.device, dtype)
        check_once(CHECK, x.device, dtype, BLOCK_TOLERANCES)
    cpb = block.attn.cpb_mlp
    geometry = geometry_of(partition, cpb.pretrained_window)
    keep = [block.drop_path.factors(x, partition.sizes) for _ in range(2)]
    keep = [] if keep[0] is None else keep
    learning = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *parameters))
    keep_activations = learning and keep_activations
    if compiling or type(x) is not Tensor:  # as tensors without memory
        out, *_ = torch.ops.swinv2.triton_block(
            x.contiguous(), parameters, keep, *geometry, dtype, keep_activations
        )
        return out
    if learning:
        return _FusedBlock.apply(
            x.contiguous(), keep, geometry, dtype, keep_activations, *parameters
        )
    table = cpb(partition.window)
    return _forward(x.contiguous(), parameters, table, keep, geometry, dtype, False)[0]


def compute_block(
    x: Tensor, parameters: BlockParameters, partition: Partition, pretrained: Size
) -> Tensor:
    """:func:`fused_block` of the parameters alone, in the dtype of ``x``."""
    geometry = geometry_of(partition, pretrained)
    return _FusedBlock.apply(x, [], geometry, x.dtype, True, *parameters)


CHECK = check_of_block(compute_block)


# Defined by its schema, as torch.library.custom_op imports the whole compiler at the first call.
_GEOMETRY = "SymInt[] sizes, SymInt[] window, bool shifted, SymInt[] pretrained"
torch.library.define(
    "swinv2::triton_block",
    f"(Tensor x, Tensor[] parameters, Tensor[] keep, {_GEOMETRY}, ScalarType dtype, "
    "bool keep_activations) -> Tensor[]",
)
torch.library.define(
    "swinv2::triton_block_backward",
    "(Tensor grad, Tensor x, Tensor[] kept, Tensor[] parameters, Tensor[] keep, "
    f"{_GEOMETRY}, ScalarType dtype) -> Tensor[]",
)


@torch.library.impl("swinv2::triton_block", "default")
def _(x, parameters, keep, *rest):
    *geometry, dtype, keep_activations = rest
    return _forward(x, parameters, None, keep, Geometry(*geometry), dtype, keep_activations)


@torch.library.impl("swinv2::triton_block_backward", "default")
def _(grad, x, kept, parameters, keep, *rest):
    *geometry, dtype = rest
    return _backward(grad, x, kept, parameters, keep, Geometry(*geometry), dtype)


@torch.library.register_fake("swinv2::triton_block")
def _(x, parameters, keep, sizes, window, shifted, pretrained, dtype, keep_activations):
    if not keep_activations:
        return [torch.empty_like(x)]
    (tokens, channels), p = x.shape, BlockParameters(*parameters)
    heads, offsets = p.logit_scale.numel(), (2 * window[0] - 1) * (2 * window[1] - 1)
    made = [x.new_empty(*size, dtype=torch.float32) for size in ((heads,), (heads, offsets))]
    made.append(x.new_empty(3 * channels, dtype=dtype))
    if p.qkv.dtype != dtype:
        made += [torch.empty_like(getattr(p, name), dtype=dtype) for name in PARAMETERS]
    widths = Activations(*(channels,) * 8)._replace(qkv=3 * channels, hidden=p.fc1.shape[0])
    met = Activations(*(x.new_empty(tokens, width, dtype=dtype) for width in widths))
    met = met._replace(log_sum_exp=x.new_empty(tokens, heads, dtype=torch.float32))
    return [torch.empty_like(x), *made, *(met if dtype != x.dtype else met[1:])]


@torch.library.register_fake("swinv2::triton_block_backward")
def _(grad, x, kept, parameters, *rest):
    contiguous = {"memory_format": torch.contiguous_format}
    return [torch.empty_like(each, **contiguous) for each in (grad, *parameters)]


def _keep_for_backward(ctx, inputs, output):
    x, parameters, keep, *geometry, ctx.dtype, _ = inputs
    ctx.geometry = geometry
    _save(ctx, x, parameters, keep, output[1:])
    ctx.set_materialize_grads(False)  # of the activations, which nobody else uses


def _differentiate(ctx, grads):
    x, parameters, keep, kept = _saved(ctx)
    no_grads = [None] * len(keep), *[None] * 6
    if grads[0] is None:
        return None, [None] * len(parameters), *no_grads
    grad_x, *by_parameters = torch.ops.swinv2.triton_block_backward(
        grads[0], x, kept, parameters, keep, *ctx.geometry, ctx.dtype
    )
    return grad_x, by_parameters, *no_grads


def _refuse(ctx, grads):
    raise RuntimeError(
        "fused blocks have no second derivative: build the model with kernel='reference'"
    )


torch.library.register_autograd(
    "swinv2::triton_block", _differentiate, setup_context=_keep_for_backward
)
torch.library.register_autograd("swinv2::triton_block_backward", _refuse)
