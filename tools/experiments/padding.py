"""Attention to padding, as in every other public Swin, for comparison with masking it."""

from __future__ import annotations

from torch import Tensor

from swinv2_backbone import SwinV2
from swinv2_backbone.attention import Attend, WindowAttention, window_attention
from swinv2_backbone.packing import pack, unpack
from swinv2_backbone.windows import Partition


class PaddingAttended(WindowAttention):
    """Attention on maps that are padded with zeros to whole windows; the zeros are keys too."""

    def forward(
        self, tokens: Tensor, partition: Partition, attend: Attend = window_attention
    ) -> Tensor:
        """(T, C) -> (T, C), for maps of one size."""
        (height, width), (m_h, m_w) = partition.sizes[0], partition.window
        padded = (-(-height // m_h) * m_h, -(-width // m_w) * m_w)
        maps = unpack(tokens, partition.sizes, padded).permute(0, 2, 3, 1)
        whole = partition._replace(sizes=(padded,) * len(maps))
        attended = super().forward(pack(maps, whole.sizes), whole, attend)
        return pack(attended.view(len(maps), *padded, -1), partition.sizes)


def attend_padding(backbone: SwinV2) -> None:
    """Let a backbone, which takes no image sizes, attend to the padding of its windows."""
    for module in backbone.modules():
        if type(module) is WindowAttention:
            module.__class__ = PaddingAttended
