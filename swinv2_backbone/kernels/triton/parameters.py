"""The parameters of a block prepared by Triton kernels: position bias, scale, bias of qkv.

They are small, so launches dominate: PyTorch needs a dozen, these kernels two in the forward and
three in the backward.  Bias and gradients are computed in float64, as in ``position_bias.py``.

Legend: nH heads; O offsets of a window; K hidden units of the MLP.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from swinv2_backbone.kernels.parameters import BlockParameters
from swinv2_backbone.kernels.triton.device import parameters as device
from swinv2_backbone.kernels.triton.launch import cdiv, launch
from swinv2_backbone.packing import Size
from swinv2_backbone.position_bias import HIDDEN, BiasParameters, offset_grid

FEW, MANY = 8, 64  # offsets per block: FEW with all hidden units, MANY with UNITS of them
UNITS = 16
VALUES = 256  # elements of scale and qkv bias per program


@lru_cache(maxsize=64)
def _offsets(window: Size, pretrained: Size, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # cached, so not an inference tensor
        return offset_grid(window, pretrained, device, torch.float64).contiguous()


def bias_table(bias: BiasParameters, window: Size, pretrained: Size) -> Tensor:
    """Compute the result of ``PositionBias.table``, (nH, O) float32."""
    weight1, bias1, weight2 = bias
    offsets, heads = _offsets(window, pretrained, weight1.device), len(weight2)
    table = offsets.new_empty(heads, len(offsets), dtype=torch.float32)
    launch(
        device.bias_table,
        heads * cdiv(len(offsets), FEW),
        (offsets, weight1, bias1, weight2, table),
        (heads, len(offsets)),
        (HIDDEN, FEW),
    )
    return table


def small_gradients(
    by_table: Tensor,
    by_scale: Tensor,
    logit_scale: Tensor,
    bias: BiasParameters,
    window: Size,
    pretrained: Size,
) -> tuple[Tensor, BiasParameters]:
    """Return the gradients of ``logit_scale`` and of the MLP of the bias.

    Args:
        by_table, by_scale: the gradients of the position bias (nH, O) and of the scale (nH,).
        logit_scale, bias: the parameters.
        window, pretrained: (height, width) in tokens.
    """
    weight1, bias1, weight2 = bias
    offsets, heads = _offsets(window, pretrained, weight1.device), len(weight2)
    numbers, inputs = (heads, len(offsets)), (offsets, weight1, bias1)
    by_inner = offsets.new_empty(heads, len(offsets))
    by_logit_scale = torch.empty_like(logit_scale)
    by_weight1, by_bias1, by_weight2 = (torch.empty_like(parameter) for parameter in bias)
    launch(
        device.bias_backward,
        heads * cdiv(len(offsets), FEW),
        (*inputs, weight2, by_table, logit_scale, by_scale, by_inner, by_logit_scale),
        numbers,
        (HIDDEN, FEW),
    )
    constants, blocks = (HIDDEN, MANY, UNITS), HIDDEN // UNITS
    tensors = *inputs, by_inner, by_weight2
    launch(device.weight2_backward, heads * blocks, tensors, numbers, constants)
    more = *inputs, weight2, by_inner, by_weight1, by_bias1
    launch(device.weight1_backward, blocks, more, numbers, constants)
    return by_logit_scale, BiasParameters(by_weight1, by_bias1, by_weight2)


def scale_and_qkv_bias(p: BlockParameters, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the scale (nH,) in float32, and the qkv bias (3C,) in ``dtype``; zero for the keys."""
    heads, channels = p.logit_scale.numel(), len(p.q_bias)
    scale = p.logit_scale.new_empty(heads, dtype=torch.float32)
    qkv_bias = p.q_bias.new_empty(3 * channels, dtype=dtype)
    tensors = p.logit_scale, p.q_bias, p.v_bias, scale, qkv_bias
    programs = cdiv(3 * channels, VALUES)
    launch(device.scale_and_bias, programs, tensors, (heads, channels), (VALUES,))
    return scale, qkv_bias
