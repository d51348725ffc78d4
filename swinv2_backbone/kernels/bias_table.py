"""The position bias of a window and its gradients, without autograd and its many small kernels."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from swinv2_backbone.position_bias import bias_of_offsets, inner_dtype, offset_grid
from swinv2_backbone.windows import Size


@lru_cache(maxsize=64)
def _offsets(window: Size, pretrained: Size, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # outlives this forward
        return offset_grid(window, pretrained, device, inner_dtype(torch.float32, device))


def bias_table(
    window: Size, pretrained: Size, weight1: Tensor, bias1: Tensor, weight2: Tensor
) -> Tensor:
    """(nH, offsets) float32, what ``PositionBias.table`` gives."""
    offsets = _offsets(window, pretrained, weight1.device)
    return bias_of_offsets(offsets, weight1, bias1, weight2).float()


def bias_table_backward(
    grad: Tensor, window: Size, pretrained: Size, weight1: Tensor, bias1: Tensor, weight2: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the weights, in float64, from that of the table."""
    offsets = _offsets(window, pretrained, weight1.device)
    weight1, bias1, weight2, grad = (x.to(offsets.dtype) for x in (weight1, bias1, weight2, grad))
    hidden = F.linear(offsets, weight1, bias1).relu_()
    share = F.linear(hidden, weight2).sigmoid_()
    by_logits = 16 * grad.t() * torch.addcmul(share, share, share, value=-1)  # 16 s (1 - s)
    by_hidden = (by_logits @ weight2).mul_(hidden > 0)
    return by_hidden.t() @ offsets, by_hidden.sum(0), by_logits.t() @ hidden
