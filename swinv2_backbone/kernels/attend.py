"""The ways to compute the attention of packed tokens, by the names of kernels/choice.py."""

from __future__ import annotations

from torch import Tensor

from swinv2_backbone.attention import Attend, window_attention
from swinv2_backbone.windows import Partition


def fused_attention(qkv: Tensor, scale: Tensor, table: Tensor, partition: Partition) -> Tensor:
    """What ``attention.window_attention`` gives, as one Triton kernel."""
    from swinv2_backbone.kernels.triton_attention import triton_window_attention

    return triton_window_attention(qkv, scale, table, *partition)


ATTEND: dict[str, Attend] = {"reference": window_attention, "triton": fused_attention}
