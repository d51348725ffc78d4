"""The ways to compute attention and whole blocks, by the names of kernels/choice.py.

What needs Triton is imported when it is called.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from swinv2_backbone.attention import Attend, window_attention
from swinv2_backbone.kernels.cpu.block import block_in_strips
from swinv2_backbone.windows import Partition


def fused_attention(qkv: Tensor, scale: Tensor, table: Tensor, partition: Partition) -> Tensor:
    """What ``attention.window_attention`` gives, as one Triton kernel."""
    from swinv2_backbone.kernels.triton.attention import triton_window_attention

    return triton_window_attention(qkv, scale, table, *partition)


def fused_block(
    block: nn.Module, x: Tensor, partition: Partition, keep_activations: bool
) -> Tensor:
    """What ``triton_block.fused_block`` gives."""
    from swinv2_backbone.kernels.triton import block as triton_block

    return triton_block.fused_block(block, x, partition, keep_activations)


ATTEND: dict[str, Attend] = {"reference": window_attention, "triton attention": fused_attention}
BLOCKS: dict[str, Callable[..., Tensor]] = {"tiles": block_in_strips, "triton": fused_block}
