"""Attention to padding, as in every other public Swin: what masking it is compared with."""

from __future__ import annotations

from torch import Tensor

from swinv2_backbone import SwinV2
from swinv2_backbone.attention import Attend, WindowAttention, window_attention
from swinv2_backbone.windows import Partition, pack, unpack


class PaddingAttended(WindowAttention):
    """Maps are padded with zeros to whole windows, and the zeros are keys like others."""

    def forward(
        self, tokens: Tensor, partition: Partition, attend: Attend = window_attention
    ) -> Tensor:
        """(T, C) -> (T, C), for maps of one size."""
        size, window = partition.sizes[0], partition.window
        padded = tuple(-(-length // m) * m for length, m in zip(size, window))
        maps = unpack(tokens, partition.sizes, padded).permute(0, 2, 3, 1)
        whole = partition._replace(sizes=(padded,) * len(maps))
        attended = super().forward(pack(maps, whole.sizes), whole, attend)
        return pack(attended.view(len(maps), *padded, -1), partition.sizes)


def attend_padding(backbone: SwinV2) -> None:
    """Let a backbone, which takes no sizes of images, attend to the padding of its windows."""
    for module in backbone.modules():
        if type(module) is WindowAttention:
            module.__class__ = PaddingAttended
