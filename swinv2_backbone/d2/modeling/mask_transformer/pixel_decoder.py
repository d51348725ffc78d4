"""The pixel decoder: deformable attention among coarse features, and one fine feature for masks.

Multi-scale deformable attention: Zhu et al. 2021, "Deformable DETR", equation 3. The decoder: Cheng
et al. 2022, "Masked-attention Mask Transformer for Universal Image Segmentation", section 3.2.2.

Legend: B images, C channels, L levels of size (h, w), S their tokens together, M heads of D = C / M
channels, P points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

NORM_GROUPS = 32
Size = tuple[int, int]


def sine_position(size: Size, channels: int, device: torch.device) -> Tensor:
    """Return the sine and cosine position embedding of a map of ``size``, (h * w, C).

    The first half of the channels is of y, the second of x, as in DETR.
    """
    frequency = 10000 ** -(torch.arange(channels // 4, device=device) * 4 / channels)
    axes = []
    for length in size:
        place = torch.arange(1, length + 1, device=device) * (2 * math.pi / length)
        angle = place[:, None] * frequency
        axes.append(torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1))  # (length, C / 2)
    y, x = axes
    height, width = size
    y, x = y[:, None].expand(-1, width, -1), x[None].expand(height, -1, -1)
    return torch.cat([y, x], dim=2).flatten(0, 1)


class DeformableAttention(nn.Module):
    """Attention of each token to P points of each level, at learned offsets from its own place."""

    def __init__(self, channels: int, levels: int, num_heads: int, points: int = 4):
        super().__init__()
        self.num_heads, self.levels, self.points = num_heads, levels, points
        self.sampling_offsets = nn.Linear(channels, num_heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, num_heads * levels * points)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self._initialize()

    def _initialize(self) -> None:
        """Let each head look in a direction of its own, and each point farther along it."""
        angle = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=1)
        direction = direction / direction.abs().amax(dim=1, keepdim=True)
        distance = torch.arange(1, self.points + 1)[:, None]
        offsets = (direction[:, None, None] * distance).expand(-1, self.levels, -1, -1)
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.sampling_offsets.bias.data.copy_(offsets.flatten())
        for layer in (self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, query: Tensor, tokens: Tensor, places: Tensor, sizes: Sequence[Size]
    ) -> Tensor:
        """Attend.

        Args:
            query: tokens with their positions, (B, S, C).
            tokens: the values, (B, S, C).
            places: x and y of each token in its map, from 0 to 1, (S, 2).
            sizes: (h, w) of the levels.
        """
        batch, count, _ = query.shape
        shape = (batch, count, self.num_heads, self.levels, self.points)
        offsets = self.sampling_offsets(query).view(*shape, 2)
        weights = self.attention_weights(query).view(*shape[:3], -1).softmax(-1).view(shape)
        # (B, S, C) -> (B * M, D, S)
        values = self.value(tokens).view(batch, count, self.num_heads, -1)
        values = values.permute(0, 2, 3, 1).flatten(0, 1)
        total: Tensor | int = 0
        parts = values.split([height * width for height, width in sizes], dim=2)
        for level, ((height, width), part) in enumerate(zip(sizes, parts, strict=True)):
            pixels = torch.tensor([width, height], device=query.device)
            point = places[:, None, None] + offsets[:, :, :, level] / pixels  # (B, S, M, P, 2)
            grid = point.transpose(1, 2).flatten(0, 1) * 2 - 1  # (B * M, S, P, 2)
            # In float32 also under autocast, whose dtypes cannot tell neighboring pixels apart.
            sampled = F.grid_sample(
                part.unflatten(2, (height, width)).float(), grid.float(), align_corners=False
            )  # (B * M, D, S, P)
            weight = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)
            total = total + (sampled * weight[:, None]).sum(-1)
        assert isinstance(total, Tensor)
        return self.output(total.view(batch, -1, count).transpose(1, 2))


class EncoderLayer(nn.Module):
    """Deformable attention and an MLP, each followed by a residual sum and a norm."""

    def __init__(self, channels: int, levels: int, num_heads: int):
        super().__init__()
        self.attn = DeformableAttention(channels, levels, num_heads)
        self.norm1 = nn.LayerNorm(channels)
        self.mlp = mlp(channels, 4 * channels, channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(
        self, tokens: Tensor, position: Tensor, places: Tensor, sizes: Sequence[Size]
    ) -> Tensor:
        tokens = self.norm1(tokens + self.attn(tokens + position, tokens, places, sizes))
        return self.norm2(tokens + self.mlp(tokens))


class PixelDecoder(nn.Module):
    """The pixel decoder.

    Args:
        input_shape: channels and strides of the features, by name. The finest one makes the
            feature for masks; the others attend to each other.
        channels: C.
        layers: number of encoder layers.
        num_heads: M.
    """

    def __init__(
        self, input_shape: Mapping[str, ShapeSpec], channels: int, layers: int, num_heads: int
    ):
        super().__init__()
        self.finest, *coarser = sorted(input_shape, key=lambda name: input_shape[name].stride)
        self.coarse = coarser[::-1]  # the order of the levels: from coarse to fine
        self.projections = nn.ModuleDict(
            {
                name: nn.Sequential(
                    conv(input_shape[name].channels, channels, 1),
                    nn.GroupNorm(NORM_GROUPS, channels),
                )
                for name in self.coarse
            }
        )
        self.level_embed = nn.Embedding(len(self.coarse), channels)
        self.layers = nn.ModuleList(
            EncoderLayer(channels, len(self.coarse), num_heads) for _ in range(layers)
        )
        self.lateral = nn.Sequential(
            conv(input_shape[self.finest].channels, channels, 1, bias=False),
            nn.GroupNorm(NORM_GROUPS, channels),
        )
        self.fusion = nn.Sequential(
            conv(channels, channels, 3, bias=False), nn.GroupNorm(NORM_GROUPS, channels), nn.ReLU()
        )
        self.mask_features = conv(channels, channels, 1)

    def forward(self, features: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the feature for masks, (B, C, H, W), and the L levels, (B, C, h, w)."""
        maps = [self.projections[name](features[name]) for name in self.coarse]
        sizes: list[Size] = [(one.shape[2], one.shape[3]) for one in maps]
        device, channels = maps[0].device, maps[0].shape[1]
        position = torch.cat(
            [
                sine_position(size, channels, device) + level
                for size, level in zip(sizes, self.level_embed.weight, strict=True)
            ]
        )
        places = torch.cat([_centers(size, device) for size in sizes])
        tokens = torch.cat([one.flatten(2).transpose(1, 2) for one in maps], dim=1)
        for layer in self.layers:
            tokens = layer(tokens, position, places, sizes)
        parts = tokens.transpose(1, 2).split([height * width for height, width in sizes], dim=2)
        levels = [part.unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]
        lateral = self.lateral(features[self.finest])
        coarse = F.interpolate(levels[-1], lateral.shape[-2:], mode="bilinear", align_corners=False)
        return self.mask_features(self.fusion(lateral + coarse)), levels


def conv(in_channels: int, channels: int, kernel_size: int, bias: bool = True) -> nn.Conv2d:
    """Return a convolution that keeps the size."""
    layer = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=bias)
    nn.init.kaiming_uniform_(layer.weight, a=1)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def mlp(*channels: int) -> nn.Sequential:
    """Return linear layers of these channels, with a ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in zip(channels, channels[1:]):
        layers += [nn.Linear(before, after), nn.ReLU()]
        nn.init.xavier_uniform_(layers[-2].weight)  # type: ignore[arg-type]  # of a Linear
    return nn.Sequential(*layers[:-1])


def _centers(size: Size, device: torch.device) -> Tensor:
    """Return x and y of the centers of the pixels of a map, from 0 to 1, (h * w, 2)."""
    y, x = (torch.arange(0.5, length, device=device) / length for length in size)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)
