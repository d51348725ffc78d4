"""The exportable form of a model: one graph for every batch size, height and width.

It calls the layers of the original model, with their hooks and adapters.  It replaces control flow
in Python by tensor operations (geometry.py), and the position bias by a constant for the current
windows and pretrained windows of the model.  It is for inference only.

Legend: B images; T tokens of the whole batch, packed (see packing.py); C channels; nH heads; N
tokens in a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinv2_backbone.attention import WindowAttention, attend_in_windows
from swinv2_backbone.backbone import FEATURES, SwinV2
from swinv2_backbone.block import Stage, SwinV2Block
from swinv2_backbone.classifier import SwinV2Classifier
from swinv2_backbone.export.geometry import graph_layout
from swinv2_backbone.layers import PATCH_SIZE, DropPath, PatchEmbed, PatchMerging, cuts_patches
from swinv2_backbone.packing import Size, shrink
from swinv2_backbone.position_bias import offset_index
from swinv2_backbone.windows import WindowLayout


class GraphBlock(nn.Module):
    """A block with its position bias, logit scale and qkv bias as constants."""

    qkv_bias: Tensor
    scale: Tensor
    table: Tensor

    def __init__(self, block: SwinV2Block, window: Size):
        super().__init__()
        attn = block.attn
        self.qkv, self.proj = attn.qkv, attn.proj
        self.norm1, self.norm2, self.norm3 = block.norm1, block.norm2, block.norm3
        self.mlp = block.mlp
        with torch.no_grad():
            self.register_buffer("qkv_bias", attn.qkv_bias.clone())
            self.register_buffer("scale", attn.scale.clone())
            self.register_buffer("table", attn.cpb_mlp(window).clone())

    def forward(self, x: Tensor, layout: WindowLayout, offsets: Tensor) -> Tensor:
        """(T, C) -> (T, C); ``offsets`` (N * N,): see position_bias.offset_index."""
        tokens = prod(layout.window)
        bias = self.table.index_select(1, offsets).view(-1, tokens, tokens)
        qkv = self.qkv(x) + self.qkv_bias
        x = x + self.norm1(self.proj(attend_in_windows(qkv, self.scale, bias, layout)))
        return self.norm3(x + self.norm2(self.mlp(x)))


class GraphStage(nn.Module):
    """Patch merging (except in the first stage), then blocks, unshifted and shifted in turn."""

    offsets: Tensor

    def __init__(self, stage: Stage):
        super().__init__()
        self.window, self.square_small_maps = stage.window_size, stage.square_small_maps
        self.downsample = stage.downsample
        self.blocks = nn.ModuleList(GraphBlock(block, self.window) for block in stage.blocks)
        device = stage.blocks[0].attn.logit_scale.device
        self.register_buffer("offsets", offset_index(self.window, device), persistent=False)

    def forward(self, x: Tensor, batch: int, size: Size) -> tuple[Tensor, Size]:
        """(T, C) of ``batch`` maps of one size -> (T', C'), and their size."""
        if self.downsample is not None:
            x, size = _merge(self.downsample, x, batch, size)
        layouts = [
            graph_layout(batch, size, self.window, shifted, x.device, self.square_small_maps)
            for shifted in (False, True)[: len(self.blocks)]
        ]
        for index, block in enumerate(self.blocks):
            x = block(x, layouts[index % 2], self.offsets)
        return x, size


class GraphBackbone(nn.Module):
    """Normalized images (B, C_in, H, W) -> name -> (B, C, ceil(H / stride), ceil(W / stride)).

    Raises:
        ValueError: a window has one token, or a part that the graph replaces has a hook or another
            ``forward``.
    """

    def __init__(self, backbone: SwinV2):
        super().__init__()
        _check_replaced_parts(backbone)
        if any(prod(window) == 1 for window in backbone.window_sizes):
            # Matrix products of one row would specialize the graph to more than one window.
            raise ValueError(
                f"windows of one token cannot be exported: the model has {backbone.window_sizes}"
            )
        self.patch_embed = backbone.patch_embed
        self.stages = nn.ModuleList(GraphStage(stage) for stage in backbone.layers)
        self.norms = backbone.norms

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        batch, features = images.shape[0], {}
        x, size = _embed(self.patch_embed, images)
        for name, stage in zip(FEATURES, self.stages):
            x, size = stage(x, batch, size)
            if name in self.norms:
                maps = self.norms[name](x).view(batch, *size, x.shape[1])
                features[name] = _copied(maps.permute(0, 3, 1, 2))
        return features


class GraphClassifier(nn.Module):
    """Normalized images (B, C_in, H, W) -> {"logits": (B, K)}."""

    def __init__(self, classifier: SwinV2Classifier):
        super().__init__()
        check_replaced("the classifier", classifier, SwinV2Classifier)
        self.backbone = GraphBackbone(classifier.backbone)
        self.head = classifier.head

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        *_, last = self.backbone(images).values()
        return {"logits": self.head(last.mean(dim=(2, 3)))}


class FromPixels(nn.Module):
    """``model((pixels - mean) / std)``, with ``mean`` and ``std`` stored in the file.

    Args:
        model: normalized images -> outputs by name.
        mean, std: one number per channel, in the unit of the pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Pixels (B, C_in, H, W) -> the outputs of the model."""
        return self.model((images - self.mean) / self.std)


def check_replaced(name: str, module: nn.Module, kind: type[nn.Module]) -> None:
    """Raise ValueError if a graph that replaces a module of class ``kind`` would change the result.

    Backward hooks have no effect in inference.
    """
    hooked = module._forward_hooks or module._forward_pre_hooks
    if hooked or "forward" in module.__dict__ or type(module).forward is not kind.forward:
        what = "it has a forward hook" if hooked else f"its forward is not that of {kind.__name__}"
        raise ValueError(
            f"{name} ({type(module).__name__}) cannot be exported, because {what}: undo that "
            "change, or make it to the layers inside, which the exported graph calls"
        )


def _check_replaced_parts(backbone: SwinV2) -> None:
    check_replaced("the backbone", backbone, SwinV2)
    check_replaced("patch_embed", backbone.patch_embed, PatchEmbed)
    for i, stage in enumerate(backbone.layers):
        check_replaced(f"layers.{i}", stage, Stage)
        if stage.downsample is not None:
            check_replaced(f"layers.{i}.downsample", stage.downsample, PatchMerging)
        for j, block in enumerate(stage.blocks):
            name = f"layers.{i}.blocks.{j}"
            check_replaced(name, block, SwinV2Block)
            check_replaced(f"{name}.attn", block.attn, WindowAttention)
            check_replaced(f"{name}.drop_path", block.drop_path, DropPath)


def _embed(embed: PatchEmbed, images: Tensor) -> tuple[Tensor, Size]:
    """Compute ``PatchEmbed``; also return the size of the maps."""
    batch, channels, height, width = images.shape
    ((rows, columns),) = shrink([(height, width)], PATCH_SIZE)
    padding = (0, PATCH_SIZE * columns - width, 0, PATCH_SIZE * rows - height)
    images = F.pad(images, padding)
    if not cuts_patches(embed.proj):
        maps = _copied(embed.proj(images).permute(0, 2, 3, 1))  # (B, h, w, C)
        return embed.norm(maps.view(batch * rows * columns, maps.shape[3])), (rows, columns)
    patches = images.view(batch, channels, rows, PATCH_SIZE, columns, PATCH_SIZE)
    patches = _copied(patches.permute(0, 2, 4, 1, 3, 5))  # (B, h, w, C_in, 4, 4)
    patches = patches.view(batch * rows * columns, channels * PATCH_SIZE**2)
    weight, bias = embed.proj.weight.flatten(1), embed.proj.bias
    return embed.norm(F.linear(patches, weight, bias)), (rows, columns)


def _merge(merging: PatchMerging, x: Tensor, batch: int, size: Size) -> tuple[Tensor, Size]:
    """Compute ``PatchMerging``; also return the size of the merged maps."""
    (height, width), channels = size, x.shape[1]
    ((rows, columns),) = shrink([size], 2)
    maps = x.view(batch, height, width, channels)
    maps = F.pad(maps, (0, 0, 0, 2 * columns - width, 0, 2 * rows - height))
    pairs = maps.view(batch, rows, 2, columns, 2, channels).permute(0, 1, 3, 4, 2, 5)
    merged = _copied(pairs).view(batch * rows * columns, 4 * channels)
    return merging.norm(merging.reduction(merged)), (rows, columns)


def _copied(x: Tensor) -> Tensor:
    """Copy a tensor to contiguous memory.

    Reshapes and convolutions would otherwise check strides, which specializes the graph to sizes.
    """
    return x.clone(memory_format=torch.contiguous_format)
