"""A whole SwinV2 block on a GPU: four matrix products, and between them nothing but fused kernels.

Attention is one kernel (triton_attention.py), so is each norm with its residual (triton_rows.py).
The block is one operator, ``torch.ops.swinv2.triton_block``, with a backward of its own: opaque to
torch.compile, one launch after the other without autograd in between, and of activations it keeps
what its backward reads and nothing twice.

Under autocast products are in half precision, and tokens, norms and residuals in float32, as the
modules have it.

Legend: T tokens of the whole batch, packed; C channels; nH heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinv2_backbone.kernels.block_weights import BlockWeights, weights_of
from swinv2_backbone.kernels.self_check import check_once
from swinv2_backbone.kernels.triton_attention import (
    attention,
    attention_backward,
    triton_window_attention,
)
from swinv2_backbone.kernels.triton_rows import add_norm, add_norm_backward, gelu_backward
from swinv2_backbone.windows import Partition


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


class _Block:
    """A block in one forward or backward."""

    def __init__(
        self,
        weights: Sequence[Tensor],
        scale: Tensor,
        table: Tensor,
        keep: Sequence[Tensor],
        sizes: Sequence[int],
        window: Sequence[int],
        shifted: bool,
        dtype: torch.dtype,
    ):
        self.weights = _rounded(BlockWeights(*weights), dtype)
        self.scale, self.table = scale.flatten(), table.contiguous()
        self.keep = keep or (None, None)  # of drop path: nothing, or two factors of every token
        self.geometry = list(sizes), list(window), shifted
        self.dtype = dtype

    def __call__(self, x: Tensor) -> Tensor:
        """(T, C) -> (T, C)."""
        w, (keep1, keep2) = self.weights, self.keep
        qkv = F.linear(x.to(self.dtype), w.qkv, w.qkv_bias)
        attended, _ = attention(qkv, self.scale, self.table, *self.geometry)
        del qkv
        projected = F.linear(attended, w.proj, w.proj_bias)
        del attended
        x, rounded = add_norm(x, projected, w.norm1, w.norm1_bias, keep1, self.dtype)
        del projected
        hidden = torch.ops.aten.gelu_(F.linear(rounded, w.fc1, w.fc1_bias))
        mlp = F.linear(hidden, w.fc2, w.fc2_bias)
        return add_norm(x, mlp, w.norm2, w.norm2_bias, keep2)[0]

    def with_activations(self, x: Tensor) -> tuple[Tensor, Activations]:
        """(T, C) -> (T, C), and what was met on the way."""
        w, (keep1, keep2) = self.weights, self.keep
        rounded = x.to(self.dtype)
        qkv = F.linear(rounded, w.qkv, w.qkv_bias)
        attended, lse = attention(qkv, self.scale, self.table, *self.geometry)
        projected = F.linear(attended, w.proj, w.proj_bias)
        x, middle = add_norm(x, projected, w.norm1, w.norm1_bias, keep1, self.dtype)
        hidden = F.linear(middle, w.fc1, w.fc1_bias)
        mlp = F.linear(F.gelu(hidden), w.fc2, w.fc2_bias)
        x, _ = add_norm(x, mlp, w.norm2, w.norm2_bias, keep2)
        met = Activations(rounded, qkv, attended, lse, projected, middle, hidden, mlp)
        return x, met

    def backward(self, grad: Tensor, met: Activations) -> tuple[Tensor, ...]:
        """The gradients of ``x``, ``scale``, ``table`` and of all weights, in float32 or as x."""
        w, (keep1, keep2) = self.weights, self.keep
        by_norm2 = add_norm_backward(grad, None, met.mlp, w.norm2, keep2)
        grad_hidden = by_norm2.branch @ w.fc2
        activated, by_fc1_bias = gelu_backward(met.hidden, grad_hidden)
        by_fc2 = by_norm2.branch.mT @ activated
        del activated
        grad_middle, by_fc1 = grad_hidden @ w.fc1, grad_hidden.mT @ met.middle
        del grad_hidden
        by_norm1 = add_norm_backward(grad, grad_middle, met.projected, w.norm1, keep1)
        del grad_middle
        grad_attended = by_norm1.branch @ w.proj
        by_proj = by_norm1.branch.mT @ met.attended
        grad_qkv, by_scale, by_table = attention_backward(
            grad_attended, met.qkv, self.scale, self.table, met.attended, met.log_sum_exp,
            *self.geometry,
        )  # fmt: skip
        del grad_attended
        grad_x = by_norm1.x.add_(grad_qkv @ w.qkv)
        by_qkv, by_qkv_bias = grad_qkv.mT @ met.x, grad_qkv.sum(0, dtype=torch.float32)
        by_weights = BlockWeights(
            by_qkv, by_qkv_bias, by_proj, by_norm1.branch_sum, by_norm1.weight, by_norm1.bias,
            by_fc1, by_fc1_bias, by_fc2, by_norm2.branch_sum, by_norm2.weight, by_norm2.bias,
        )  # fmt: skip
        return grad_x, by_scale, by_table, *by_weights


def _rounded(weights: BlockWeights, dtype: torch.dtype) -> BlockWeights:
    """The weights with those of the linear layers in ``dtype``."""
    names = [name for name in BlockWeights._fields if not name.startswith("norm")]
    given = [getattr(weights, name) for name in names]
    if all(one.dtype == dtype for one in given):
        return weights
    rounded = [torch.empty_like(one, dtype=dtype) for one in given]
    torch._foreach_copy_(rounded, given)
    return weights._replace(**dict(zip(names, rounded)))


def fused_block(
    block: nn.Module, x: Tensor, partition: Partition, keep_activations: bool
) -> Tensor:
    """(T, C) -> (T, C), what the modules of a ``SwinV2Block`` give up to its ``norm3``.

    ``keep_activations``: for the backward pass; else it computes them again.
    """
    weights, scale, table = (
        weights_of(block),
        block.attn.scale,
        block.attn.cpb_mlp(partition.window),
    )
    device, dtype = x.device.type, x.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    if x.is_cuda and not torch.compiler.is_compiling():
        check_once(triton_window_attention, x.device, dtype)
    keep = [block.drop_path.factors(x, partition.sizes) for _ in range(2)]
    learning = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *weights, scale, table))
    out, *_ = torch.ops.swinv2.triton_block(
        x.contiguous(),
        weights,
        scale,
        table,
        [] if keep[0] is None else keep,
        [length for size in partition.sizes for length in size],
        partition.window,
        partition.shifted,
        dtype,
        learning and keep_activations,
    )
    return out


# Defined by its schema, as torch.library.custom_op imports the whole compiler at the first call.
torch.library.define(
    "swinv2::triton_block",
    "(Tensor x, Tensor[] weights, Tensor scale, Tensor table, Tensor[] keep, SymInt[] sizes, "
    "SymInt[] window, bool shifted, ScalarType dtype, bool keep_activations) -> Tensor[]",
)
torch.library.define(
    "swinv2::triton_block_backward",
    "(Tensor grad, Tensor x, Tensor[] kept, Tensor[] weights, Tensor scale, Tensor table, "
    "Tensor[] keep, SymInt[] sizes, SymInt[] window, bool shifted, ScalarType dtype) -> Tensor[]",
)


@torch.library.impl("swinv2::triton_block", "default")
def _forward(
    x: Tensor,
    weights: Sequence[Tensor],
    scale: Tensor,
    table: Tensor,
    keep: Sequence[Tensor],
    sizes: Sequence[int],
    window: Sequence[int],
    shifted: bool,
    dtype: torch.dtype,
    keep_activations: bool,
) -> list[Tensor]:
    """The block's output (T, C) and, if they are kept for the backward, its activations.

    ``x`` is among these if it had to be rounded: what an operator gives must not be what it takes.

    Args:
        x: (T, C).
        weights: those of :class:`BlockWeights`.
        scale: (nH, 1, 1), the exponential of the clamped ``logit_scale``.
        table: (nH, offsets of the window), the position bias.
        keep: nothing, or what the two branches of every token are multiplied by, (T, 1) each.
        sizes: height and width of every map, one after the other.
        window: (Mh, Mw).
        shifted: whether the windows are shifted.
        dtype: of the matrix products.
        keep_activations: False: the backward computes them again, from ``x``.
    """
    block = _Block(weights, scale, table, keep, sizes, window, shifted, dtype)
    if not keep_activations:
        return [block(x)]
    out, met = block.with_activations(x)
    return [out, *(met if met.x is not x else met[1:])]


@torch.library.impl("swinv2::triton_block_backward", "default")
def _backward(
    grad: Tensor,
    x: Tensor,
    kept: Sequence[Tensor],
    weights: Sequence[Tensor],
    scale: Tensor,
    table: Tensor,
    keep: Sequence[Tensor],
    sizes: Sequence[int],
    window: Sequence[int],
    shifted: bool,
    dtype: torch.dtype,
) -> list[Tensor]:
    """The gradients of ``x``, ``scale``, ``table`` and ``weights`` of :func:`_forward`.

    ``kept`` are the activations that are not ``x``, or nothing.
    """
    block = _Block(weights, scale, table, keep, sizes, window, shifted, dtype)
    met = Activations(x, *kept) if kept else block.with_activations(x)[1]
    grad_x, by_scale, by_table, *by_weights = block.backward(grad, met)
    by_weights = [gradient.to(w.dtype) for gradient, w in zip(by_weights, weights)]
    return [grad_x, by_scale.view_as(scale), by_table, *by_weights]


@torch.library.register_fake("swinv2::triton_block")
def _(x, weights, scale, table, keep, sizes, window, shifted, dtype, keep_activations):
    if not keep_activations:
        return [torch.empty_like(x)]
    tokens, channels = x.shape
    hidden = BlockWeights(*weights).fc1.shape[0]
    widths = Activations(*(channels,) * 8)._replace(qkv=3 * channels, hidden=hidden)
    kept = Activations(*(x.new_empty(tokens, width, dtype=dtype) for width in widths))
    kept = kept._replace(log_sum_exp=x.new_empty(tokens, scale.numel(), dtype=torch.float32))
    return [torch.empty_like(x), *(kept if dtype != x.dtype else kept[1:])]


@torch.library.register_fake("swinv2::triton_block_backward")
def _(grad, x, kept, weights, scale, table, keep, sizes, window, shifted, dtype):
    return [torch.empty_like(grad), *map(torch.empty_like, (scale, table, *weights))]


def _save_for_backward(ctx, inputs, output):
    x, weights, scale, table, keep, *ctx.geometry, ctx.dtype, keep_activations = inputs
    kept = output[1:]
    if keep_activations and ctx.dtype != x.dtype:
        x, *kept = kept
    ctx.lengths = len(weights), len(keep)
    ctx.save_for_backward(x, scale, table, *weights, *keep, *kept)
    ctx.set_materialize_grads(False)  # of the activations, which nobody else uses


def _differentiate(ctx, grads):
    x, scale, table, *rest = ctx.saved_tensors
    num_weights, num_keep = ctx.lengths
    weights, keep = rest[:num_weights], rest[num_weights : num_weights + num_keep]
    kept = rest[num_weights + num_keep :]
    if grads[0] is None:
        return None, [None] * num_weights, None, None, [None] * num_keep, *[None] * 5
    grad_x, grad_scale, grad_table, *grad_weights = torch.ops.swinv2.triton_block_backward(
        grads[0].contiguous(), x, kept, weights, scale, table, keep, *ctx.geometry, ctx.dtype
    )
    return grad_x, grad_weights, grad_scale, grad_table, [None] * num_keep, *[None] * 5


def _refuse(ctx, grads):
    raise RuntimeError(
        "fused blocks have no second derivative: build the model with kernel='reference'"
    )


torch.library.register_autograd(
    "swinv2::triton_block", _differentiate, setup_context=_save_for_backward
)
torch.library.register_autograd("swinv2::triton_block_backward", _refuse)
