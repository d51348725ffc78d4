"""The two position biases that the paper compares its own with (section 3.3, table 1).

The package has none of them: they live here, with the experiment.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinv2_backbone import SwinV2
from swinv2_backbone.block import SwinV2Block
from swinv2_backbone.kernels.choose import parts_of
from swinv2_backbone.position_bias import PositionBias
from swinv2_backbone.windows import Size

BIASES = ("log", "linear", "parameterised")


class LinearBias(PositionBias):
    """A small MLP maps the offset itself: ``mlp(d / (p - 1))`` with p the pre-training window.

    As in the paper's first step, before the coordinates are log-spaced: nothing bounds the bias.
    """

    def table(self, window: Size) -> Tensor:
        """(nH, (2 Mh - 1) * (2 Mw - 1))."""
        axes = (
            torch.arange(1 - length, length, device=self[0].weight.device) / max(pretrained - 1, 1)
            for length, pretrained in zip(window, self.pretrained_window)
        )
        hidden = F.linear(torch.cartesian_prod(*axes), self[0].weight, self[0].bias)
        return F.linear(hidden.relu_(), self[2].weight).t().contiguous()


class ParameterisedBias(nn.Module):
    """One learnt number per offset, as in Swin V1; bicubic interpolation for another window."""

    def __init__(self, num_heads: int, pretrained_window: Size):
        super().__init__()
        self.pretrained_window = pretrained_window
        height, width = (2 * length - 1 for length in pretrained_window)
        self.weight = nn.Parameter(
            nn.init.trunc_normal_(torch.empty(num_heads, height, width), std=0.02)
        )

    def forward(self, window: Size) -> Tensor:
        """(nH, (2 Mh - 1) * (2 Mw - 1))."""
        if window == self.pretrained_window:
            return self.weight.flatten(1)
        size = tuple(2 * length - 1 for length in window)
        resized = F.interpolate(self.weight[None], size, mode="bicubic", align_corners=True)
        return resized[0].flatten(1)


KINDS = {"log": PositionBias, "linear": LinearBias, "parameterised": ParameterisedBias}


def set_bias(backbone: SwinV2, kind: str) -> None:
    """Give every block of a new backbone a bias of one of ``BIASES``."""
    for block in backbone.modules():
        if isinstance(block, SwinV2Block):
            attn = block.attn
            attn.cpb_mlp = KINDS[kind](attn.num_heads, attn.cpb_mlp.pretrained_window)
            # Blocks in strips take any bias as a table; they need not be computed by modules.
            block.made_of = parts_of(block)
    for module in backbone.modules():
        if isinstance(module, PositionBias):
            for layer in (module[0], module[2]):
                nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(module[0].bias)
