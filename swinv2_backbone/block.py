"""The res-post-norm block (paper section 3.2, figure 1) and the stage: merging, then blocks.

Legend: T tokens of the whole batch, packed (see windows.py); C channels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from swinv2_backbone.attention import WindowAttention
from swinv2_backbone.layers import DropPath, Mlp, PatchMerging
from swinv2_backbone.windows import Size, WindowLayout, merge_seating, shrink, window_layout


class SwinV2Block(nn.Module):
    """``x + norm1(attn(x))``, then ``x + norm2(mlp(x))``: the norms end the branches.

    Args:
        dim: channels C.
        num_heads: heads of the attention.
        pretrained_window: (ph, pw), see :class:`WindowAttention`.
        drop_path: probability of dropping a branch; dropped AFTER its norm, or the norm's bias
            would remain.
        extra_norm: one more LayerNorm on the main branch, as SwinV2-H and -G have.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        pretrained_window: Size,
        drop_path: float = 0.0,
        extra_norm: bool = False,
    ):
        super().__init__()
        self.attn = WindowAttention(dim, num_heads, pretrained_window)
        self.norm1 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.drop_path = DropPath(drop_path)
        self.norm3 = nn.LayerNorm(dim) if extra_norm else nn.Identity()

    def forward(self, x: Tensor, layout: WindowLayout, forbidden: Tensor | None) -> Tensor:
        """(T, C) -> (T, C); ``forbidden`` is what ``layout.forbidden()`` says."""
        attended = layout.to_tokens(self.attn(layout.to_windows(x), layout.window, forbidden))
        x = x + self.drop_path(self.norm1(attended), layout.tokens_per_image)
        x = x + self.drop_path(self.norm2(self.mlp(x)), layout.tokens_per_image)
        return self.norm3(x)


class Stage(nn.Module):
    """Patch merging (but for the first stage), then blocks; every second block is shifted.

    The maps change only here, so that a stage's output simply is its feature.

    Args:
        blocks: the blocks, unshifted and shifted in turn.
        window_size: (Mh, Mw); may be changed at any time.
        downsample: the merging that starts the stage, or None.
        activation_checkpointing: recompute every block in the backward pass instead of keeping
            its activations.
    """

    def __init__(
        self,
        blocks: list[SwinV2Block],
        *,
        window_size: Size,
        downsample: PatchMerging | None,
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        self.window_size = window_size
        self.activation_checkpointing = activation_checkpointing
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, sizes: tuple[Size, ...]) -> tuple[Tensor, tuple[Size, ...]]:
        """(T, C) and the sizes of its maps -> (T', C') and theirs."""
        if self.downsample is not None:
            x, sizes = self.downsample(x, merge_seating(sizes, x.device)), shrink(sizes, 2)
        layouts = [
            window_layout(sizes, self.window_size, shifted, x.device) for shifted in (False, True)
        ]
        forbidden = [layout.forbidden() for layout in layouts]  # once, for all blocks
        for index, block in enumerate(self.blocks):
            args = (x, layouts[index % 2], forbidden[index % 2])
            if self.activation_checkpointing and self.training:
                x = checkpoint(block, *args, use_reentrant=False)
            else:
                x = block(*args)
        return x, sizes
