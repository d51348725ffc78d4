"""The forward of a SwinV2 block on one tile, whose intermediate results stay in the cache.

Legend: T tokens of the whole batch, packed; n tokens of a tile; C channels; nH heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from swinv2_backbone.attention import exp_logit_scale, join_qkv_bias
from swinv2_backbone.kernels.cpu.attention import WindowBias, tile_attention
from swinv2_backbone.kernels.cpu.linear import PreparedLinear
from swinv2_backbone.kernels.cpu.pointwise import gelu, linear_gelu, native_for
from swinv2_backbone.kernels.parameters import LAYER_NORM_EPS, BlockParameters
from swinv2_backbone.kernels.tiles import Tile, tiles
from swinv2_backbone.windows import Partition


class Activations(NamedTuple):
    """Saved activations: the tensors that the backward of a block needs besides its input."""

    qkv: Tensor  # (n, 3C)
    attended: Tensor  # (n, C)
    projected: Tensor  # (n, C)
    hidden: Tensor  # (n, 4C), before GELU
    mlp: Tensor  # (n, C)


class TiledBlock:
    """A block in one forward or backward, with its prepared parameters and its tiles.

    Args:
        parameters: parameters of the block; they are converted to ``dtype``.
        table: (nH, offsets of the window), the position bias.
        drop_path: empty, or the per-token drop path scales of both branches, (T, 1) each.
        partition: the windows.
        hidden_bytes: size of the hidden layer of the MLP for one tile, see block.py.
        dtype: dtype of the tokens of a tile.
    """

    def __init__(
        self,
        parameters: BlockParameters,
        table: Tensor,
        drop_path: Sequence[Tensor],
        partition: Partition,
        hidden_bytes: int,
        dtype: torch.dtype,
    ):
        self.dtype = dtype
        self.scale = exp_logit_scale(parameters.logit_scale).view(-1, 1)
        self.parameters = p = BlockParameters(*(each.to(dtype) for each in parameters))
        self.num_tokens = tokens = sum(h * w for h, w in partition.sizes)
        self.bias = WindowBias(table, partition.window)
        norms = ((p.norm1, p.norm1_bias), (p.norm2, p.norm2_bias))
        self.norms = [(weight.contiguous(), bias.contiguous()) for weight, bias in norms]
        self.drop_path = drop_path
        self.qkv = PreparedLinear(p.qkv, join_qkv_bias(p.q_bias, p.v_bias), tokens)
        self.proj = PreparedLinear(p.proj, p.proj_bias, tokens)
        self.fc1 = PreparedLinear(p.fc1, p.fc1_bias, tokens)
        self.fc2 = PreparedLinear(p.fc2, p.fc2_bias, tokens)
        most_tokens = hidden_bytes // (len(p.fc1) * self.scale.element_size())
        self.tiles = tiles(partition, most_tokens)

    def __call__(self, x: Tensor, tile: Tile) -> Tensor:
        """(n, C) -> (n, C)."""
        attended = tile_attention(self.qkv(x), self.scale, self.bias, tile)
        x = self.add_norm(x, self.proj(attended), 0, tile)
        return self.add_norm(x, self.fc2(linear_gelu(self.fc1, x)), 1, tile)

    def with_activations(self, x: Tensor, tile: Tile) -> tuple[Tensor, Activations]:
        """(n, C) -> (n, C), and the activations that the backward needs."""
        qkv = self.qkv(x)
        attended = tile_attention(qkv, self.scale, self.bias, tile)
        projected = self.proj(attended)
        x = self.add_norm(x, projected, 0, tile)
        hidden = self.fc1(x)
        mlp = self.fc2(gelu(hidden))
        x = self.add_norm(x, mlp, 1, tile)
        return x, Activations(qkv, attended, projected, hidden, mlp)

    def add_norm(self, x: Tensor, branch: Tensor, which: int, tile: Tile) -> Tensor:
        """Return ``x`` plus the norm of a branch after drop path, (n, C)."""
        if library := native_for(x):
            scales = self.drop_path[which][tile.tokens].to(x.dtype) if self.drop_path else None
            weight, bias = self.norms[which]
            return library.add_norm(x, branch, weight, bias, scales, LAYER_NORM_EPS)
        return self.scaled(self.norm(branch, which)[0], which, tile).add_(x)

    def norm(self, x: Tensor, which: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return a norm of (n, C), its mean and its reciprocal standard deviation."""
        return torch.native_layer_norm(x, x.shape[-1:], *self.norms[which], LAYER_NORM_EPS)

    def scaled(self, x: Tensor, which: int, tile: Tile) -> Tensor:
        """Apply drop path to a branch's output, or to the gradient of its output."""
        return x * self.drop_path[which][tile.tokens] if self.drop_path else x
