"""SimMIM: pre-training without labels by reconstructing hidden parts of images.

"SimMIM: a Simple Framework for Masked Image Modeling", arXiv 2111.09886, section 3: hidden patches
become one learned token, a linear layer predicts pixels from the last feature map, and the loss is
the mean absolute error of the hidden pixels.

Legend: B images of H x W pixels; h, w their height and width in tokens (H / 4, W / 4); T = B h w
tokens of the batch, packed (see packing.py); C channels of the first stage.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.layers import PATCH_SIZE
from swinv2_backbone.packing import pack, shrink, size_of

MASK_PATCH, MASK_RATIO = 32, 0.6  # side in pixels, and share of squares: section 4.1
TINY = 1e-5  # keeps the loss of a batch without hidden pixels finite


class SimMIM(nn.Module):
    """A backbone with a decoder that reconstructs hidden patches.

    Args:
        backbone: backbone with one output, that of its last stage.

    Attributes:
        stride: stride of that output; the sides of images must be multiples of it.

    Raises:
        ValueError: the backbone has other outputs, whose norms would never be trained.
    """

    def __init__(self, backbone: SwinV2):
        super().__init__()
        if len(backbone.out_features) != 1:
            raise ValueError(
                "pre-training uses the last feature map alone: build the backbone with "
                f"out_features={backbone.out_features[-1:]}, not {backbone.out_features}"
            )
        (self.output,) = backbone.out_features
        self.stride = backbone.strides[self.output]
        self.backbone = backbone
        self.mask_token = nn.Parameter(torch.zeros(1, 1, backbone.embed_dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        pixels = backbone.in_channels * self.stride**2  # of one token of the last map
        self.decoder = nn.Sequential(
            nn.Conv2d(backbone.channels[self.output], pixels, kernel_size=1),
            nn.PixelShuffle(self.stride),
        )

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """Return the loss, a scalar in float32.

        Args: see :meth:`reconstruct`.
        """
        return masked_l1(self.reconstruct(images, mask), images, mask)

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """Reconstruct whole images from their visible patches.

        Args:
            images: (B, C_in, H, W), floating point, normalized by mean and std.
            mask: (B, h, w) bool, True where a patch of 4 x 4 pixels is hidden.

        Returns:
            (B, C_in, H, W)

        Raises:
            ValueError: H or W is not a multiple of the stride, or the mask does not fit the images.
        """
        self._check(images, mask)
        sizes = shrink([size_of(images)] * len(images), PATCH_SIZE)
        x = self.backbone.patch_embed(images, sizes)
        hidden = pack(mask[..., None], sizes)  # (T, 1)
        x = torch.where(hidden, self.mask_token[0].to(x.dtype), x)
        return self.decoder(self.backbone.forward_tokens(x, sizes, sizes[0])[self.output])

    def _check(self, images: Tensor, mask: Tensor) -> None:
        height, width = images.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ValueError(
                f"the sides of images must be multiples of the stride {self.stride}, "
                f"got {height} x {width}"
            )
        expected = (len(images), height // PATCH_SIZE, width // PATCH_SIZE)
        if mask.shape != expected or mask.dtype != torch.bool:
            raise ValueError(
                f"the mask must be bool of shape {expected}, one value for each patch of "
                f"{PATCH_SIZE} x {PATCH_SIZE} pixels, got {mask.dtype} of {tuple(mask.shape)}"
            )


def masked_l1(found: Tensor, images: Tensor, mask: Tensor) -> Tensor:
    """Return the mean absolute error of the hidden pixels, a scalar in float32.

    Args:
        found, images: (B, C_in, H, W).
        mask: (B, h, w) bool.
    """
    hidden = hidden_pixels(mask)
    error = (found.float() - images.float()).abs() * hidden
    return error.sum() / (hidden.sum() + TINY) / images.shape[1]


def hidden_pixels(mask: Tensor) -> Tensor:
    """Convert a mask of patches to one of pixels, (B, h, w) -> (B, 1, H, W)."""
    rows = mask.repeat_interleave(PATCH_SIZE, dim=1)
    return rows.repeat_interleave(PATCH_SIZE, dim=2)[:, None]


def random_masks(
    count: int,
    image_size: int,
    generator: torch.Generator,
    *,
    patch: int = MASK_PATCH,
    ratio: float = MASK_RATIO,
) -> Tensor:
    """Draw masks of square images, with equally many hidden patches in each image.

    Args:
        count: number of images B.
        image_size: side of the images in pixels.
        generator: CPU generator that determines the masks.
        patch: side in pixels of the squares, each of which is hidden or visible as a whole.
        ratio: share of squares to hide, rounded up to a whole number of squares.

    Returns:
        (B, h, w) bool, for :class:`SimMIM`.

    Raises:
        ValueError: see :func:`check_masking`.
    """
    check_masking(image_size, patch, ratio)
    side = image_size // patch
    order = torch.rand(count, side**2, generator=generator).argsort(dim=1)
    mask = torch.zeros(count, side**2, dtype=torch.bool)
    mask.scatter_(1, order[:, : math.ceil(ratio * side**2)], True)
    tokens = patch // PATCH_SIZE
    mask = mask.view(count, side, side).repeat_interleave(tokens, dim=1)
    return mask.repeat_interleave(tokens, dim=2)


def check_masking(image_size: int, patch: int, ratio: float) -> None:
    """Raise ValueError if squares do not tile the images, or if all or none would be hidden."""
    if patch < PATCH_SIZE or patch % PATCH_SIZE:
        raise ValueError(
            f"the mask patch must be a multiple of the backbone's patches of {PATCH_SIZE} pixels, "
            f"got {patch}"
        )
    if image_size < patch or image_size % patch:
        raise ValueError(
            f"the image size must be a multiple of the mask patch {patch}, got {image_size}: take "
            f"{(image_size // patch + 1) * patch}, or another mask patch"
        )
    squares = (image_size // patch) ** 2
    if not 0 < ratio < 1 or math.ceil(ratio * squares) == squares:
        raise ValueError(
            f"the mask ratio must hide some but not all of the {squares} squares of an image, got "
            f"{ratio}: take 0.6, or a smaller mask patch"
        )
