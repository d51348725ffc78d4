"""The res-post-norm block (paper section 3.2, figure 1) and the stage: merging, then blocks.

Legend: T tokens of the whole batch, packed (see windows.py); C channels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from swinv2_backbone.attention import WindowAttention
from swinv2_backbone.kernels.attend import ATTEND, BLOCKS
from swinv2_backbone.kernels.choose import choose, parts_of
from swinv2_backbone.layers import DropPath, Mlp, PatchMerging
from swinv2_backbone.windows import Partition, Size, shrink


class SwinV2Block(nn.Module):
    """``x + norm1(attn(x))``, then ``x + norm2(mlp(x))``: the norms end the branches.

    Args:
        dim: channels C.
        num_heads: heads of the attention.
        pretrained_window: (ph, pw), see :class:`WindowAttention`.
        drop_path: probability of dropping a branch; dropped AFTER its norm, or the norm's bias
            would remain.
        extra_norm: one more LayerNorm on the main branch, as SwinV2-H and -G have.
        activation_checkpointing: compute the block again in the backward pass instead of keeping
            its activations.
        kernel: how to compute it, see kernels/choice.py.
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
        self.made_of = parts_of(self)

    def forward(self, x: Tensor, partition: Partition) -> Tensor:
        """(T, C) -> (T, C)."""
        kernel = choose(self.kernel, x, partition, self)
        recompute = self.activation_checkpointing and self.training
        if kernel in BLOCKS:
            x = BLOCKS[kernel](self, x, partition, keep_activations=not recompute)
        elif recompute:
            x = checkpoint(self._by_modules, x, partition, kernel, use_reentrant=False)
        else:
            x = self._by_modules(x, partition, kernel)
        return self.norm3(x)

    def _by_modules(self, x: Tensor, partition: Partition, kernel: str) -> Tensor:
        attended = self.attn(x, partition, ATTEND[kernel])
        x = x + self.drop_path(self.norm1(attended), partition.sizes)
        return x + self.drop_path(self.norm2(self.mlp(x)), partition.sizes)


class Stage(nn.Module):
    """Patch merging (but for the first stage), then blocks; every second block is shifted.

    The maps change only here, so that a stage's output simply is its feature.

    Args:
        blocks: the blocks, unshifted and shifted in turn.
        window_size: (Mh, Mw); may be changed at any time.
        downsample: the merging that starts the stage, or None.
    """

    def __init__(
        self, blocks: list[SwinV2Block], *, window_size: Size, downsample: PatchMerging | None
    ):
        super().__init__()
        self.window_size = window_size
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, sizes: tuple[Size, ...]) -> tuple[Tensor, tuple[Size, ...]]:
        """(T, C) and the sizes of its maps -> (T', C') and theirs."""
        if self.downsample is not None:
            x, sizes = self.downsample(x, sizes), shrink(sizes, 2)
        for index, block in enumerate(self.blocks):
            x = block(x, Partition(sizes, self.window_size, shifted=index % 2 == 1))
        return x, sizes
