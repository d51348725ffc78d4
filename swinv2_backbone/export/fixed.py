"""The exportable form of a model for one shape: no arithmetic on sizes, at most four axes.

Many runtimes cannot compute the windows of graph.py, which are for every size.  Here they are cut
by reshapes, transposes and slices of known sizes, and the mask is a constant.

Legend: B images; H, W a map in tokens; T = H * W; C channels; (Mh, Mw) a window clipped to the map;
nh, nw rows and columns of windows; N = Mh * Mw tokens in a window; nH heads, d channels of each.
"""

from __future__ import annotations

import copy
from math import prod
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinv2_backbone.backbone import FEATURES
from swinv2_backbone.export.graph import GraphBackbone, GraphBlock, GraphStage
from swinv2_backbone.layers import PATCH_SIZE, PatchEmbed, PatchMerging
from swinv2_backbone.packing import Size, shrink
from swinv2_backbone.windows import Partition, window_layout

MASKED = -1e4  # added to a logit; far below all, and finite in float16


class FixedWindows(nn.Module):
    """The windows of maps of one size: (B, H, W, C) <-> (B * nh * nw, N, C).

    Attributes:
        mask: (B * nh * nw, 1, N, N), added to logits; None if every token attends to its window.
    """

    mask: Tensor | None

    def __init__(self, batch: int, partition: Partition):
        super().__init__()
        (size,), (window, shifted) = partition.sizes, partition.window_of(partition.sizes[0])
        self.batch, self.size = batch, size
        self.window: Size = (min(size[0], window[0]), min(size[1], window[1]))
        pairs = list(zip(size, window, self.window))
        self.shift = tuple(m // 2 if shifted and n > m else 0 for n, m, _ in pairs)
        self.padded = tuple(-(-n // m) * m for n, _, m in pairs)
        mask = window_layout(partition, torch.device("cpu")).attn_mask()
        if mask is not None:
            mask = torch.where(mask, MASKED, 0.0)[:, None].repeat(batch, 1, 1, 1)
        self.register_buffer("mask", mask)

    def cut(self, maps: Tensor) -> Tensor:
        """(B, H, W, C) -> (B * nh * nw, N, C); places outside the map are zero."""
        (height, width), (rows, columns) = self.size, self.padded
        (mh, mw), channels = self.window, maps.shape[3]
        if self.padded != self.size:
            maps = F.pad(maps, (0, 0, 0, columns - width, 0, rows - height))
        for axis, shift in enumerate(self.shift, 1):
            maps = _rolled(maps, axis, shift)
        windows = maps.reshape(self.batch * (rows // mh), mh, columns // mw, mw * channels)
        return windows.transpose(1, 2).reshape(-1, mh * mw, channels)

    def join(self, windows: Tensor) -> Tensor:
        """(B * nh * nw, N, C) -> (B, H, W, C)."""
        (height, width), (rows, columns) = self.size, self.padded
        (mh, mw), channels = self.window, windows.shape[2]
        maps = windows.reshape(self.batch * (rows // mh), columns // mw, mh, mw * channels)
        maps = maps.transpose(1, 2).reshape(self.batch, rows, columns, channels)
        for axis, shift in enumerate(self.shift, 1):
            maps = _rolled(maps, axis, maps.shape[axis] - shift if shift else 0)
        return maps[:, :height, :width] if self.padded != self.size else maps


class FixedBlock(nn.Module):
    """A :class:`GraphBlock` for maps of one size."""

    bias: Tensor
    scale: Tensor
    qkv_bias: Tensor

    def __init__(self, block: GraphBlock, offsets: Tensor, window: Size, clipped: Size):
        super().__init__()
        self.qkv, self.proj, self.mlp = block.qkv, block.proj, block.mlp
        self.norm1, self.norm2, self.norm3 = block.norm1, block.norm2, block.norm3
        self.register_buffer("qkv_bias", block.qkv_bias)
        self.register_buffer("scale", block.scale)
        (mh, mw), tokens = clipped, prod(clipped)
        bias = block.table.index_select(1, offsets).view(-1, *window, *window)
        bias = bias[:, :mh, :mw, :mh, :mw].reshape(-1, tokens, tokens)
        # litert-torch 0.10 may confuse constants that are not contiguous.
        self.register_buffer("bias", bias.contiguous())

    def forward(self, x: Tensor, windows: FixedWindows) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        batch, _, channels = x.shape
        qkv = self.qkv(x) + self.qkv_bias
        q, k, v = (
            self._heads(windows.cut(part.reshape(batch, *windows.size, channels)))
            for part in (qkv[..., i * channels : (i + 1) * channels] for i in range(3))
        )
        logits = (_unit(q) * self.scale) @ _unit(k).transpose(2, 3) + self.bias
        if windows.mask is not None:
            logits = logits + windows.mask
        out = (logits.softmax(-1) @ v).transpose(1, 2).reshape(-1, v.shape[2], channels)
        out = windows.join(out).reshape(batch, -1, channels)
        x = x + self.norm1(self.proj(out))
        return self.norm3(x + self.norm2(self.mlp(x)))

    def _heads(self, windows: Tensor) -> Tensor:
        """(nW, N, C) -> (nW, nH, N, d)."""
        number, tokens, channels = windows.shape
        heads = len(self.scale)
        return windows.reshape(number, tokens, heads, channels // heads).transpose(1, 2)


class FixedStage(nn.Module):
    """A :class:`GraphStage` for ``batch`` maps of one size, before its patch merging."""

    def __init__(self, stage: GraphStage, batch: int, size: Size):
        super().__init__()
        self.downsample, self.size = stage.downsample, size
        if stage.downsample is not None:
            (size,) = shrink([size], 2)
        self.merged: Size = size
        windows = [
            FixedWindows(batch, Partition((size,), stage.window, shifted, stage.square_small_maps))
            for shifted in (False, True)[: len(stage.blocks)]
        ]
        self.windows = nn.ModuleList(windows)
        self.blocks = nn.ModuleList(
            FixedBlock(cast(GraphBlock, block), stage.offsets, stage.window, windows[0].window)
            for block in stage.blocks
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T', C')."""
        if self.downsample is not None:
            x = _merge(self.downsample, x, self.size)
        for index, block in enumerate(self.blocks):
            x = block(x, self.windows[index % 2])
        return x


class FixedBackbone(nn.Module):
    """A :class:`GraphBackbone` for images of one shape."""

    def __init__(self, graph: GraphBackbone, shape: torch.Size):
        super().__init__()
        batch, _, *image = shape
        ((height, width),) = shrink([(image[0], image[1])], PATCH_SIZE)
        self.patch_embed, self.norms = graph.patch_embed, graph.norms
        size, stages = (height, width), []
        for stage in graph.stages:
            stages.append(FixedStage(cast(GraphStage, stage), batch, size))
            size = stages[-1].merged
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x, features = _embed(self.patch_embed, images), {}
        for name, stage in zip(FEATURES, self.stages):
            x = stage(x)
            if name in self.norms:
                maps = self.norms[name](x).transpose(1, 2)
                features[name] = maps.reshape(x.shape[0], x.shape[2], *cast(Size, stage.merged))
        return features


@torch.no_grad()
def fix_shape(model: nn.Module, images: Tensor) -> nn.Module:
    """Return a model for the shape of ``images`` alone; its layers are those of ``model``.

    Args:
        model: an exportable form, with :class:`GraphBackbone` inside.
        images: any (B, C_in, H, W).
    """
    graphs = [part for part in model.modules() if isinstance(part, GraphBackbone)]
    shapes: dict[int, torch.Size] = {}

    def note(graph: nn.Module, given: tuple[Tensor]) -> None:
        shapes[id(graph)] = given[0].shape

    hooks = [graph.register_forward_pre_hook(note) for graph in graphs]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    fixed = {id(graph): FixedBackbone(graph, shapes[id(graph)]).eval() for graph in graphs}
    return copy.deepcopy(model, fixed)


def _embed(embed: PatchEmbed, images: Tensor) -> Tensor:
    """Compute ``PatchEmbed``: (B, C_in, H, W) -> (B, T, C)."""
    padding = [-length % PATCH_SIZE for length in images.shape[2:]]
    if any(padding):
        images = F.pad(images, (0, padding[1], 0, padding[0]))
    return embed.norm(embed.proj(images).flatten(2).transpose(1, 2))


def _merge(merging: PatchMerging, x: Tensor, size: Size) -> Tensor:
    """Compute ``PatchMerging``: (B, T, C) -> (B, T', C')."""
    (batch, _, channels), (height, width) = x.shape, size
    maps = x.reshape(batch, height, width, channels)
    if height % 2 or width % 2:
        maps = F.pad(maps, (0, 0, 0, width % 2, 0, height % 2))
    rows, columns = (height + 1) // 2, (width + 1) // 2
    pairs = maps.reshape(batch * rows, 2, columns, 2 * channels)
    upper, lower = pairs[:, 0], pairs[:, 1]  # (B * rows, columns, 2 C)
    merged = torch.cat(
        [
            upper[..., :channels],
            lower[..., :channels],
            upper[..., channels:],
            lower[..., channels:],
        ],
        dim=2,
    )
    merged = merged.reshape(batch, rows * columns, 4 * channels)
    return merging.norm(merging.reduction(merged))


def _rolled(maps: Tensor, axis: int, shift: int) -> Tensor:
    """Move an axis by ``shift`` towards its start; what leaves it enters at the end."""
    if not shift:
        return maps
    rest = maps.shape[axis] - shift
    return torch.cat([maps.narrow(axis, shift, rest), maps.narrow(axis, 0, shift)], dim=axis)


def _unit(x: Tensor) -> Tensor:
    """Divide the rows of (nW, nH, N, d) by their length, as ``F.normalize`` with an eps of 1e-6.

    The eps of a sum would be dropped by PyTorch's ONNX exporter, which takes it for zero.  The sum
    is over two axes, because pnnx (ncnn) drops a sum over one.
    """
    squares = (x * x).reshape(x.shape[0], -1, x.shape[3], 1).sum((2, 3))
    return x * torch.rsqrt(squares.clamp_min(1e-12)).reshape(*x.shape[:3], 1)
