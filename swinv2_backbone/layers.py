"""The layers of a SwinV2 besides attention: MLP, drop path, patch embedding and patch merging.

Legend: B images; T tokens of the whole batch, packed (see packing.py); C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinv2_backbone.packing import (
    Size,
    count_tokens,
    neighbors,
    pack,
    pad_end,
    shrink,
    size_of,
    tokens_per_image,
)
from swinv2_backbone.plain import is_plain
from swinv2_backbone.precision import linear

PATCH_SIZE = 4


class Mlp(nn.Module):
    """``fc2(gelu(fc1(x)))`` with a hidden layer of 4 * ``dim``, the ratio of every SwinV2."""

    def __init__(self, dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class DropPath(nn.Module):
    """Stochastic depth: in training, a branch is zero for a whole image with probability ``rate``.

    Branches that are kept are divided by 1 - ``rate``, which preserves the expectation.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor, sizes: tuple[Size, ...]) -> Tensor:
        """(T, C) -> (T, C); ``sizes`` are those of the images' maps."""
        scale = self.scale(branch, sizes)
        return branch if scale is None else branch * scale

    def scale(self, branch: Tensor, sizes: tuple[Size, ...]) -> Tensor | None:
        """Draw the per-token drop path scale, (T, 1); None when inactive."""
        if not self.training or self.rate == 0:
            return None
        kept = branch.new_empty(len(sizes)).bernoulli_(1 - self.rate) / (1 - self.rate)
        count = count_tokens if torch.compiler.is_compiling() else tokens_per_image
        tokens = count(sizes, branch.device)
        return kept.repeat_interleave(tokens, output_size=len(branch))[:, None]

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


class PatchEmbed(nn.Module):
    """Images to packed tokens: a 4x4 convolution with stride 4, then LayerNorm."""

    def __init__(self, in_channels: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, PATCH_SIZE, PATCH_SIZE)
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor, sizes: tuple[Size, ...]) -> Tensor:
        """(B, C_in, H, W) -> (T, C): the top-left ``sizes[b]`` (in tokens) of each image b.

        Images are zero-padded at the bottom and right to whole patches.
        """
        count, channels, height, width = images.shape
        ((rows, columns),) = shrink([(height, width)], PATCH_SIZE)
        images = pad_end(images, (0, columns * PATCH_SIZE - width, 0, rows * PATCH_SIZE - height))
        if not cuts_patches(self.proj):
            return self.norm(pack(self._maps(images, (rows, columns)), sizes))
        patches = images.view(count, channels, rows, PATCH_SIZE, columns, PATCH_SIZE)
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (B, h, w, C_in * 4 * 4)
        # As patches do not overlap, the convolution is a linear layer on packed tokens.
        weight, bias = self.proj.weight.flatten(1), self.proj.bias
        return self.norm(linear(pack(patches, sizes), weight, bias))

    def _maps(self, images: Tensor, size: Size) -> Tensor:
        """Call the convolution: (B, C_in, H, W) -> (B, h, w, C)."""
        maps = self.proj(images)
        if not torch.compiler.is_compiling() and size_of(maps) != size:
            raise ValueError(
                f"patch_embed.proj must divide heights and widths by {PATCH_SIZE}, but its maps "
                f"of {tuple(images.shape)} are {tuple(maps.shape)}, not (..., {size[0]}, {size[1]})"
            )
        return maps.permute(0, 2, 3, 1)


def cuts_patches(proj: nn.Module) -> bool:
    """Return True for a plain convolution of patches that do not overlap, as a SwinV2 has it."""
    return (
        isinstance(proj, nn.Conv2d)
        and is_plain(proj, nn.Conv2d)
        and proj.kernel_size == proj.stride == (PATCH_SIZE, PATCH_SIZE)
        and proj.padding == (0, 0)
        and proj.dilation == (1, 1)
        and proj.groups == 1
    )


class PatchMerging(nn.Module):
    """Merging of 2x2 neighbors into one token of twice the channels, then LayerNorm."""

    def __init__(self, dim: int):
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, tokens: Tensor, sizes: tuple[Size, ...]) -> Tensor:
        """(T, C) -> (T', 2C); heights and widths are halved, rounding up."""
        merged = neighbors(tokens, sizes)
        if is_plain(self.reduction, nn.Linear):
            return self.norm(linear(merged, self.reduction.weight, self.reduction.bias))
        return self.norm(self.reduction(merged))
