"""The two position biases that the paper compares its own with (section 3.3, table 1).

The package has neither of them; they belong to the experiment.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinv2_backbone import SwinV2
from swinv2_backbone.block import SwinV2Block
from swinv2_backbone.packing import Size
from swinv2_backbone.position_bias import PositionBias

BIASES = ("log", "linear", "parameterized")


class LinearBias(PositionBias):
    """An MLP of the offset itself, ``mlp(d / (p - 1))`` with p the pretrained window.

    It is the paper's first step, before the coordinates are log-spaced; the bias is unbounded.
    """

    def table(self, window: Size) -> Tensor:
        """Return the bias of every offset, (nH, (2 Mh - 1) * (2 Mw - 1))."""
        parameters = self.mlp_parameters()
        assert parameters is not None
        weight1, bias1, weight2 = parameters
        axes = (
            torch.arange(1 - length, length, device=weight1.device) / max(pretrained - 1, 1)
            for length, pretrained in zip(window, self.pretrained_window)
        )
        hidden = F.linear(torch.cartesian_prod(*axes), weight1, bias1)
        return F.linear(hidden.relu_(), weight2).t().contiguous()


class ParameterizedBias(nn.Module):
    """One learned number per offset, as in Swin V1; bicubic interpolation for another window."""

    def __init__(self, num_heads: int, pretrained_window: Size):
        super().__init__()
        self.pretrained_window = pretrained_window
        height, width = (2 * length - 1 for length in pretrained_window)
        self.weight = nn.Parameter(
            nn.init.trunc_normal_(torch.empty(num_heads, height, width), std=0.02)
        )

    def forward(self, window: Size) -> Tensor:
        """Return the bias of every offset, (nH, (2 Mh - 1) * (2 Mw - 1))."""
        if window == self.pretrained_window:
            return self.weight.flatten(1)
        size = tuple(2 * length - 1 for length in window)
        resized = F.interpolate(self.weight[None], size, mode="bicubic", align_corners=True)
        return resized[0].flatten(1)


KINDS: dict[str, type[PositionBias] | type[ParameterizedBias]] = {
    "log": PositionBias,
    "linear": LinearBias,
    "parameterized": ParameterizedBias,
}


def set_bias(backbone: SwinV2, kind: str) -> None:
    """Give every block of a new backbone a bias of one of ``BIASES``."""
    for block in backbone.modules():
        if isinstance(block, SwinV2Block):
            attn = block.attn
            bias = KINDS[kind](attn.num_heads, attn.cpb_mlp.pretrained_window)
            attn.cpb_mlp = cast(PositionBias, bias)  # or a module that is called like one
            block.mark_as_built()
    for module in backbone.modules():
        if isinstance(module, PositionBias):
            parameters = module.mlp_parameters()
            assert parameters is not None
            nn.init.trunc_normal_(parameters.weight1, std=0.02)
            nn.init.trunc_normal_(parameters.weight2, std=0.02)
            nn.init.zeros_(parameters.bias1)
