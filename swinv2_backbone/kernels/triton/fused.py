"""The forward and backward of a SwinV2 block on a GPU: matrix products and fused kernels.

Legend: T tokens of the whole batch, packed; C channels; nH heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from swinv2_backbone.kernels.parameters import BlockParameters
from swinv2_backbone.kernels.triton.attention import Arguments, attention, attention_backward
from swinv2_backbone.kernels.triton.parameters import (
    bias_table,
    scale_and_qkv_bias,
    small_gradients,
)
from swinv2_backbone.kernels.triton.rows import add_norm, add_norm_backward, gelu_backward
from swinv2_backbone.packing import Size
from swinv2_backbone.position_bias import BiasParameters


class Geometry(NamedTuple):
    """The windows of a block's attention, as an operator takes them."""

    sizes: list[int]  # height and width of each map in turn
    window: list[int]  # (Mh, Mw)
    shifted: bool
    square_small_maps: bool
    pretrained: list[int]  # the pretrained window of the position bias


class Activations(NamedTuple):
    """Saved activations: the tensors that the backward reads, in the dtype of the products.

    ``x`` and ``middle`` are the inputs of the two branches.
    """

    x: Tensor  # (T, C)
    qkv: Tensor  # (T, 3C)
    attended: Tensor  # (T, C)
    log_sum_exp: Tensor  # (T, nH) float32
    projected: Tensor  # (T, C)
    middle: Tensor  # (T, C)
    hidden: Tensor  # (T, 4C), before GELU
    mlp: Tensor  # (T, C)


class Constants(NamedTuple):
    """Tensors computed from a block's parameters in the forward and reused in the backward."""

    scale: Tensor  # (nH,) float32
    table: Tensor  # (nH, offsets of the window) float32, the position bias
    qkv_bias: Tensor  # (3C,); this and the following in the dtype of the products
    qkv: Tensor
    proj: Tensor
    proj_bias: Tensor
    fc1: Tensor
    fc1_bias: Tensor
    fc2: Tensor
    fc2_bias: Tensor


UNROUNDED = Constants._fields[3:]  # the parameters themselves, where they need no rounding


def prepare(
    p: BlockParameters,
    bias: BiasParameters,
    table: Tensor | None,
    geometry: Geometry,
    dtype: torch.dtype,
) -> Constants:
    """Compute the constants of a block; ``table``: the position bias, if it is known."""
    scale, qkv_bias = scale_and_qkv_bias(p, dtype)
    if table is None:
        table = bias_table(bias, _size(geometry.window), _size(geometry.pretrained))
    own = [getattr(p, name) for name in UNROUNDED]
    if p.qkv.dtype != dtype:
        rounded = [torch.empty_like(one, dtype=dtype) for one in own]
        torch._foreach_copy_(rounded, own)
        own = rounded
    return Constants(scale, table, qkv_bias, *own)


class FusedBlock:
    """A block in one forward or backward.

    Args:
        parameters, bias: parameters of the block and of its position bias.
        constants: tensors computed from them, see :func:`prepare`.
        drop_path: empty, or the per-token drop path scales of both branches, (T, 1) each.
        geometry: the windows of the attention.
        dtype: dtype of the matrix products.
    """

    def __init__(
        self,
        parameters: BlockParameters,
        bias: BiasParameters,
        constants: Constants,
        drop_path: Sequence[Tensor],
        geometry: Geometry,
        dtype: torch.dtype,
    ):
        self.parameters, self.bias, self.constants = parameters, bias, constants
        self.drop_path1 = drop_path[0] if drop_path else None
        self.drop_path2 = drop_path[1] if drop_path else None
        self.geometry, self.dtype = geometry, dtype

    def __call__(self, x: Tensor) -> Tensor:
        """(T, C) -> (T, C)."""
        w, p = self.constants, self.parameters
        qkv = F.linear(x.to(self.dtype), w.qkv, w.qkv_bias)
        attended, _ = attention(self._attention(qkv))
        del qkv
        projected = F.linear(attended, w.proj, w.proj_bias)
        del attended
        x, rounded = add_norm(x, projected, p.norm1, p.norm1_bias, self.drop_path1, self.dtype)
        del projected
        hidden = torch.ops.aten.gelu_(F.linear(rounded, w.fc1, w.fc1_bias))
        mlp = F.linear(hidden, w.fc2, w.fc2_bias)
        return add_norm(x, mlp, p.norm2, p.norm2_bias, self.drop_path2)[0]

    def with_activations(self, x: Tensor) -> tuple[Tensor, Activations]:
        """(T, C) -> (T, C), and the activations that the backward needs."""
        w, p = self.constants, self.parameters
        rounded = x.to(self.dtype)
        qkv = F.linear(rounded, w.qkv, w.qkv_bias)
        attended, lse = attention(self._attention(qkv))
        projected = F.linear(attended, w.proj, w.proj_bias)
        x, middle = add_norm(x, projected, p.norm1, p.norm1_bias, self.drop_path1, self.dtype)
        hidden = F.linear(middle, w.fc1, w.fc1_bias)
        mlp = F.linear(F.gelu(hidden), w.fc2, w.fc2_bias)
        x, _ = add_norm(x, mlp, p.norm2, p.norm2_bias, self.drop_path2)
        return x, Activations(rounded, qkv, attended, lse, projected, middle, hidden, mlp)

    def backward(
        self, grad: Tensor, saved: Activations
    ) -> tuple[Tensor, BlockParameters, BiasParameters]:
        """Return the gradients of ``x`` and of all parameters, the latter in any dtype."""
        w, p = self.constants, self.parameters
        by_norm2 = add_norm_backward(grad, None, saved.mlp, p.norm2, self.drop_path2)
        grad_hidden = by_norm2.branch @ w.fc2
        activated, by_fc1_bias = gelu_backward(saved.hidden, grad_hidden)
        by_fc2 = by_norm2.branch.mT @ activated
        del activated
        grad_middle, by_fc1 = grad_hidden @ w.fc1, grad_hidden.mT @ saved.middle
        del grad_hidden
        by_norm1 = add_norm_backward(grad, grad_middle, saved.projected, p.norm1, self.drop_path1)
        del grad_middle
        grad_attended = by_norm1.branch @ w.proj
        by_proj = by_norm1.branch.mT @ saved.attended
        grad_qkv, by_scale, by_table = attention_backward(
            grad_attended, saved.attended, saved.log_sum_exp, self._attention(saved.qkv)
        )
        del grad_attended
        by_qkv, by_qkv_bias = grad_qkv.mT @ saved.x, grad_qkv.sum(0, dtype=torch.float32)
        grad_x = by_norm1.x.add_(grad_qkv @ w.qkv)
        window, pretrained = _size(self.geometry.window), _size(self.geometry.pretrained)
        by_logit_scale, by_bias = small_gradients(
            by_table, by_scale, p.logit_scale, self.bias, window, pretrained
        )
        channels = len(p.q_bias)
        by_parameters = BlockParameters(
            qkv=by_qkv,
            q_bias=by_qkv_bias[:channels],
            v_bias=by_qkv_bias[2 * channels :],
            logit_scale=by_logit_scale,
            proj=by_proj,
            proj_bias=by_norm1.branch_sum,
            norm1=by_norm1.weight,
            norm1_bias=by_norm1.bias,
            fc1=by_fc1,
            fc1_bias=by_fc1_bias,
            fc2=by_fc2,
            fc2_bias=by_norm2.branch_sum,
            norm2=by_norm2.weight,
            norm2_bias=by_norm2.bias,
        )
        return grad_x, by_parameters, by_bias

    def _attention(self, qkv: Tensor) -> Arguments:
        w, (sizes, window, shifted, square, _) = self.constants, self.geometry
        return Arguments(qkv, w.scale, w.table, sizes, window, shifted, square)


def _size(lengths: Sequence[int]) -> Size:
    height, width = lengths
    return height, width
