"""The transformer decoder: queries that attend to the foreground of the masks they predict.

Cheng et al. 2022, "Masked-attention Mask Transformer for Universal Image Segmentation", sections
3.2.1 and 3.2.2.

Legend: B images, Q queries, K classes, C channels, L levels, M heads, N tokens of a level; H, W of
the feature for masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinv2_backbone.d2.modeling.mask_transformer.pixel_decoder import Size, mlp, sine_position


class Prediction(NamedTuple):
    """Class logits (B, Q, K + 1), the last of "no object", and mask logits (B, Q, H, W)."""

    classes: Tensor
    masks: Tensor


class DecoderLayer(nn.Module):
    """Masked cross attention, self attention and an MLP, each followed by a sum and a norm."""

    def __init__(self, channels: int, num_heads: int):
        super().__init__()
        self.cross_attn = _attention(channels, num_heads)
        self.norm1 = nn.LayerNorm(channels)
        self.self_attn = _attention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = mlp(channels, 8 * channels, channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(
        self, query: Tensor, position: Tensor, key: Tensor, value: Tensor, background: Tensor
    ) -> Tensor:
        """Return the queries, (B, Q, C).

        Args:
            query, position: content and position of the queries, (B, Q, C) and (Q, C).
            key, value: tokens of a level with and without their positions, (B, N, C).
            background: (B * M, Q, N) bool, True where a query does not attend to a token.
        """
        seen, _ = self.cross_attn(
            query + position, key, value, attn_mask=background, need_weights=False
        )
        query = self.norm1(query + seen)
        placed = query + position
        query = self.norm2(query + self.self_attn(placed, placed, query, need_weights=False)[0])
        return self.norm3(query + self.mlp(query))


class MaskedAttentionDecoder(nn.Module):
    """The decoder; the layers attend to the levels in turn.

    Args:
        channels: C.
        num_classes: K.
        num_queries: Q.
        levels: L.
        layers: number of decoder layers.
        num_heads: M.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        num_queries: int,
        levels: int,
        layers: int,
        num_heads: int,
    ):
        super().__init__()
        self.num_heads = num_heads
        self.query_content = nn.Embedding(num_queries, channels)
        self.query_position = nn.Embedding(num_queries, channels)
        self.level_embed = nn.Embedding(levels, channels)
        self.layers = nn.ModuleList(DecoderLayer(channels, num_heads) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.class_head = nn.Linear(channels, num_classes + 1)
        self.mask_head = mlp(channels, channels, channels, channels)

    def forward(self, levels: Sequence[Tensor], mask_features: Tensor) -> list[Prediction]:
        """Return the predictions before the first layer and after each.

        Args:
            levels: L maps (B, C, h, w).
            mask_features: (B, C, H, W).
        """
        keys, values, sizes = [], [], []
        for level, embed in zip(levels, self.level_embed.weight, strict=True):
            size = (level.shape[2], level.shape[3])
            value = level.flatten(2).transpose(1, 2) + embed
            keys.append(value + sine_position(size, level.shape[1], level.device))
            values.append(value)
            sizes.append(size)
        query = self.query_content.weight.expand(len(mask_features), -1, -1)
        position = self.query_position.weight
        found = [self._predict(query, mask_features)]
        for number, layer in enumerate(self.layers):
            at = number % len(levels)
            background = self._background(found[-1].masks, sizes[at])
            query = layer(query, position, keys[at], values[at], background)
            found.append(self._predict(query, mask_features))
        return found

    def _predict(self, query: Tensor, mask_features: Tensor) -> Prediction:
        query = self.norm(query)
        masks = torch.einsum("bqc,bchw->bqhw", self.mask_head(query), mask_features)
        return Prediction(self.class_head(query), masks)

    def _background(self, masks: Tensor, size: Size) -> Tensor:
        """Return (B * M, Q, h * w) True outside of the predicted masks.

        A query whose mask is empty attends to all tokens.
        """
        masks = F.interpolate(masks.detach(), size, mode="bilinear", align_corners=False)
        background = masks.flatten(2) < 0
        background &= ~background.all(dim=2, keepdim=True)
        return background.repeat_interleave(self.num_heads, dim=0)


def _attention(channels: int, num_heads: int) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(channels, num_heads, batch_first=True)
