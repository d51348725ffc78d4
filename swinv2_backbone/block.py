"""The res-post-norm block (paper section 3.2, figure 1) and the stage: merging, then blocks.

Legend: T tokens of the whole batch, packed (see packing.py); C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from swinv2_backbone.attention import Attend, WindowAttention, window_attention
from swinv2_backbone.kernels.choose import Kernel, choose, is_traced, kept_choice
from swinv2_backbone.kernels.cpu.block import tiled_block
from swinv2_backbone.kernels.parameters import LAYER_NORM_EPS, BlockParameters
from swinv2_backbone.layers import DropPath, Mlp, PatchMerging
from swinv2_backbone.packing import Size, shrink
from swinv2_backbone.plain import Parts
from swinv2_backbone.position_bias import PositionBias, recomputed_table
from swinv2_backbone.windows import Partition


class SwinV2Block(nn.Module):
    """``x + norm1(attn(x))``, then ``x + norm2(mlp(x))``: each branch ends with its norm.

    Args:
        dim: channels C.
        num_heads: number of attention heads.
        pretrained_window: (ph, pw), see :class:`WindowAttention`.
        drop_path: probability of dropping a branch.  Branches are dropped AFTER their norm;
            otherwise the norm's bias would remain.
        extra_norm: add a LayerNorm to the main branch, as in SwinV2-H and -G.
        activation_checkpointing: recompute the block in the backward pass instead of saving its
            activations.
        kernel: the implementation, see kernels/choose.py.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        pretrained_window: Size,
        drop_path: float = 0.0,
        extra_norm: bool = False,
        activation_checkpointing: bool = False,
        kernel: str = "auto",
    ):
        super().__init__()
        self.attn = WindowAttention(dim, num_heads, pretrained_window)
        self.norm1 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.drop_path = DropPath(drop_path)
        self.norm3 = nn.LayerNorm(dim) if extra_norm else nn.Identity()
        self.head_dim = dim // num_heads
        self.activation_checkpointing = activation_checkpointing
        self.kernel = kernel
        self.mark_as_built()

    def forward(self, x: Tensor, partition: Partition) -> Tensor:
        """(T, C) -> (T, C)."""
        parameters = self.plain_parameters()
        kernel = self._choose(x, partition.window, parameters)
        recompute = self.activation_checkpointing and self.training
        if parameters is not None and kernel in (Kernel.TILES, Kernel.TRITON):
            x = self._by_kernel(kernel, x, parameters, partition, recompute)
        elif recompute:
            x = checkpoint(self._by_modules, x, partition, ATTEND[kernel], use_reentrant=False)
        else:
            x = self._by_modules(x, partition, ATTEND[kernel])
        return self.norm3(x)

    def mark_as_built(self) -> None:
        """Record the current inner modules; unless they change, a kernel may compute the block.

        If they change, the block is computed by its modules.  Call this again after deliberately
        replacing the position bias, and only then.
        """
        self._parts = Parts(self, any_dtype=PositionBias)
        self._plain_bias = type(self.attn.cpb_mlp) is PositionBias

    def plain_parameters(self) -> BlockParameters | None:
        """Return the parameters up to ``norm3`` in forward order, or None unless a kernel may
        compute the block from them.
        """
        found = self._parts.parameters(self)
        if found is None or self.norm1.eps != LAYER_NORM_EPS or self.norm2.eps != LAYER_NORM_EPS:
            return None
        return BlockParameters(
            qkv=found["attn.qkv.weight"],
            q_bias=found["attn.q_bias"],
            v_bias=found["attn.v_bias"],
            logit_scale=found["attn.logit_scale"],
            proj=found["attn.proj.weight"],
            proj_bias=found["attn.proj.bias"],
            norm1=found["norm1.weight"],
            norm1_bias=found["norm1.bias"],
            fc1=found["mlp.fc1.weight"],
            fc1_bias=found["mlp.fc1.bias"],
            fc2=found["mlp.fc2.weight"],
            fc2_bias=found["mlp.fc2.bias"],
            norm2=found["norm2.weight"],
            norm2_bias=found["norm2.bias"],
        )

    def _choose(self, x: Tensor, window: Size, parameters: BlockParameters | None) -> Kernel:
        if is_traced():
            return Kernel.REFERENCE
        # A graph cannot hold a cache.
        make_choice = choose if torch.compiler.is_compiling() else kept_choice
        return make_choice(
            self.kernel,
            x.device,
            x.dtype,
            window,
            self.head_dim,
            plain=parameters is not None,
            plain_bias=self._plain_bias,
        )

    def _by_kernel(
        self,
        kernel: Kernel,
        x: Tensor,
        parameters: BlockParameters,
        partition: Partition,
        recompute: bool,
    ) -> Tensor:
        bias = self.attn.cpb_mlp
        drop_path = self._drop_path_scales(x, partition.sizes)
        if kernel is Kernel.TILES:
            window = partition.window
            table = recomputed_table(bias, window) if recompute else bias(window)
            return tiled_block(
                x, parameters, table, drop_path, partition, save_activations=not recompute
            )
        # Triton is optional.
        from swinv2_backbone.kernels.triton.block import fused_block

        of_bias = bias.mlp_parameters()
        assert of_bias is not None  # the whole block is plain
        return fused_block(
            x,
            parameters,
            of_bias,
            bias.pretrained_window,
            bias,
            drop_path,
            partition,
            save_activations=not recompute,
        )

    def _drop_path_scales(self, x: Tensor, sizes: tuple[Size, ...]) -> list[Tensor]:
        """Draw the drop path scale of each branch; none when inactive."""
        scales = [self.drop_path.scale(x, sizes) for _ in range(2)]
        return [scale for scale in scales if scale is not None]

    def _by_modules(self, x: Tensor, partition: Partition, attend: Attend) -> Tensor:
        attended = self.attn(x, partition, attend)
        x = x + self.drop_path(self.norm1(attended), partition.sizes)
        return x + self.drop_path(self.norm2(self.mlp(x)), partition.sizes)


def _triton_attention(qkv: Tensor, scale: Tensor, table: Tensor, partition: Partition) -> Tensor:
    # Triton is optional.
    from swinv2_backbone.kernels.triton.attention import triton_window_attention

    return triton_window_attention(qkv, scale, table, partition)


ATTEND: dict[Kernel, Attend] = {
    Kernel.REFERENCE: window_attention,
    Kernel.TRITON_ATTENTION: _triton_attention,
}


class Stage(nn.Module):
    """Patch merging (except in the first stage), then blocks; every second block is shifted.

    The maps change only here, so the output of a stage is its feature.

    Args:
        blocks: the blocks, unshifted and shifted in turn.
        window_size: (Mh, Mw); may be changed at any time.
        square_small_maps: see :class:`Partition`.
        downsample: the merging that starts the stage, or None.
    """

    def __init__(
        self,
        blocks: list[SwinV2Block],
        *,
        window_size: Size,
        square_small_maps: bool = False,
        downsample: PatchMerging | None,
    ):
        super().__init__()
        self.window_size = window_size
        self.square_small_maps = square_small_maps
        self.downsample = downsample
        # A ModuleList, whose type does not include its element type.
        self.blocks = cast(Sequence[SwinV2Block], nn.ModuleList(blocks))

    def forward(self, x: Tensor, sizes: tuple[Size, ...]) -> tuple[Tensor, tuple[Size, ...]]:
        """(T, C) and the sizes of its maps -> (T', C') and their sizes."""
        if self.downsample is not None:
            x, sizes = self.downsample(x, sizes), shrink(sizes, 2)
        windows = Partition(sizes, self.window_size, False, self.square_small_maps)
        for index, block in enumerate(self.blocks):
            x = block(x, windows._replace(shifted=index % 2 == 1))
        return x, sizes
