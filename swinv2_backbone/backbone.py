"""SwinV2: images -> {"res2": ..., "res3": ..., "res4": ..., "res5": ...}, strides 4, 8, 16, 32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from swinv2_backbone.block import Stage, SwinV2Block
from swinv2_backbone.kernels.choose import asked_for
from swinv2_backbone.layers import PATCH_SIZE, PatchEmbed, PatchMerging
from swinv2_backbone.packing import Size, shrink, size_of, unpack
from swinv2_backbone.settings import (
    FEATURES,
    SMALL_MAP_RULES,
    WindowSizes,
    check_options,
    check_small_maps,
    check_stages,
    window_per_stage,
)


class SwinV2(nn.Module):
    """The Swin Transformer V2 (arXiv 2111.09883) as a multi-scale backbone.

    Args:
        embed_dim: channels C of the first stage; they double with every stage.
        depths: number of blocks of each stage.
        num_heads: number of attention heads of each stage.
        window_size: window in tokens: one number, one per stage, or one (height, width) per stage.
        pretrained_window_sizes: the windows the weights were trained with, in the same forms; they
            normalize the position bias.  Default: ``window_size``, for training from scratch.
        small_map_rule: the windows of a map whose shorter side is one window or less.  "per_axis":
            the window is clipped, and not shifted, along the axes that it fits; "square": windows
            as wide and as high as the shorter side, without a shift, as in Microsoft's model.
            They differ on images that are not square.
        out_features: the outputs to return, a subset of "res2" ... "res5"; only these have an
            output norm, and stages after the last of them are not built.
        drop_path_rate: drop path rate of the last block; rates rise linearly from 0.
        frozen_stages: -1 freezes nothing, 0 the patch embedding, k also the first k stages.  Frozen
            parts get no gradient and stay in eval mode.
        activation_checkpointing: save only the inputs of blocks for the backward pass.
        extra_norm_every: add a LayerNorm to the main branch after every n-th block of a stage; 0
            adds none.
        in_channels: channels of the images.
        kernel: the implementation of the blocks: "auto", the fastest for the device; "reference",
            "tiles" or "triton", see kernels/choose.py.  Results are equal up to rounding.

    Attributes:
        channels: channels of each output, by name.
        strides: stride of each output in pixels, by name.
        pretrained_windows_assumed: True if ``pretrained_window_sizes`` was not given, so that a
            checkpoint that specifies them may set them.
        pretrained_windows_stated: True if they are the user's statement, which a checkpoint that
            does not specify them is loaded with.

    Raises:
        ValueError: an argument is out of range, or arguments differ in the number of stages.
    """

    def __init__(
        self,
        embed_dim: int,
        depths: Sequence[int],
        *,
        num_heads: Sequence[int],
        window_size: WindowSizes,
        pretrained_window_sizes: WindowSizes | None = None,
        small_map_rule: str = "per_axis",
        out_features: Sequence[str] = FEATURES,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        activation_checkpointing: bool = False,
        extra_norm_every: int = 0,
        in_channels: int = 3,
        kernel: str = "auto",
    ):
        super().__init__()
        depths, num_heads = tuple(depths), tuple(num_heads)
        widths = check_stages(embed_dim, depths, num_heads)
        windows = window_per_stage(window_size, len(depths), "window_size")
        pretrained = (
            windows
            if pretrained_window_sizes is None
            else window_per_stage(pretrained_window_sizes, len(depths), "pretrained_window_sizes")
        )
        check_small_maps(small_map_rule, windows)
        check_options(out_features, drop_path_rate, frozen_stages, len(depths))
        kernel = asked_for(kernel)

        self.pretrained_windows_assumed = pretrained_window_sizes is None
        self.pretrained_windows_stated = pretrained_window_sizes is not None
        self.in_channels = in_channels
        self.embed_dim = embed_dim
        self.num_stages = len(depths)
        self.frozen_stages = frozen_stages
        self.out_features = tuple(name for name in FEATURES if name in out_features)
        stage_of = dict(zip(FEATURES, range(len(depths))))
        self.channels = {name: widths[stage_of[name]] for name in self.out_features}
        self.strides = {name: PATCH_SIZE * 2 ** stage_of[name] for name in self.out_features}

        self.patch_embed = PatchEmbed(in_channels, embed_dim)
        stages = []
        # No stage after the last output: unused weights break distributed training.
        for stage in range(max(stage_of[name] for name in self.out_features) + 1):
            first = sum(depths[:stage])
            blocks = [
                SwinV2Block(
                    widths[stage],
                    num_heads[stage],
                    pretrained_window=pretrained[stage],
                    drop_path=drop_path_rate * j / max(sum(depths) - 1, 1),
                    extra_norm=(extra_norm_every > 0 and (j - first + 1) % extra_norm_every == 0),
                    activation_checkpointing=activation_checkpointing,
                    kernel=kernel,
                )
                for j in range(first, first + depths[stage])
            ]
            downsample = PatchMerging(widths[stage - 1]) if stage else None
            square = small_map_rule == "square"
            stages.append(
                Stage(
                    blocks,
                    window_size=windows[stage],
                    square_small_maps=square,
                    downsample=downsample,
                )
            )
        # A ModuleList, whose type does not include its element type.
        self.layers = cast(Sequence[Stage], nn.ModuleList(stages))
        self.norms = nn.ModuleDict(
            {name: nn.LayerNorm(self.channels[name]) for name in self.out_features}
        )
        self._initialize()
        for part in self._frozen_parts():
            part.requires_grad_(False)
        self.train()

    def forward(
        self, images: Tensor, image_sizes: Sequence[Size] | None = None
    ) -> dict[str, Tensor]:
        """Compute the features of a batch of images.

        Args:
            images: (B, C_in, H, W), floating point; any height and width from 1 pixel up.
            image_sizes: true (height, width) of each image in pixels, if the batch was padded at
                the bottom and right (with zeros).  Padding is neither attended to nor computed,
                and its features are zero.  Default: every image is (H, W).

        Returns:
            name -> (B, C, ceil(H / stride), ceil(W / stride)) for each of ``out_features``, in
            channels-last memory format.

        Raises:
            ValueError: the images have a wrong shape, are integers, or do not match their sizes.
        """
        sizes = self._check_images(images, image_sizes)
        sizes, (full,) = shrink(sizes, PATCH_SIZE), shrink([size_of(images)], PATCH_SIZE)
        return self.forward_tokens(self.patch_embed(images, sizes), sizes, full)

    def forward_tokens(self, x: Tensor, sizes: tuple[Size, ...], full: Size) -> dict[str, Tensor]:
        """Compute the features from the tokens of the patch embedding.

        Args:
            x: (T, C), the packed tokens of the first stage (see packing.py).
            sizes: (height, width) of each image's map, in tokens.
            full: (height, width) in tokens, to which all maps of the batch are padded.
        """
        features = {}
        for index, (name, stage) in enumerate(zip(FEATURES, self.layers)):
            x, sizes = stage(x, sizes)
            if index:  # every stage but the first starts with a merging
                (full,) = shrink([full], 2)
            if name in self.norms:
                features[name] = unpack(self.norms[name](x), sizes, full)
        return features

    def set_window_size(self, window_size: WindowSizes) -> None:
        """Change the windows of a built model; the bias extrapolates from its pretrained window.

        Args:
            window_size: one number, one per stage, or one (height, width) per stage.

        Raises:
            ValueError: a window is smaller than 1 or not square where ``small_map_rule`` requires
                it, or the number of stages differs.
        """
        windows = window_per_stage(window_size, self.num_stages, "window_size")
        check_small_maps(self.small_map_rule, windows)
        for stage, window in zip(self.layers, windows):
            _set_inside(stage, "window_size", window)

    def set_pretrained_window_sizes(self, window_size: WindowSizes, *, stated: bool = True) -> None:
        """Set the windows the weights were trained with, which normalize the position bias.

        Args:
            window_size: one number, one per stage, or one (height, width) per stage.
            stated: see ``pretrained_windows_stated``.

        Raises:
            ValueError: a window is smaller than 1, or the number of stages differs.
        """
        windows = window_per_stage(window_size, self.num_stages, "pretrained_window_sizes")
        for stage, window in zip(self.layers, windows):
            _set_inside(stage, "pretrained_window", window)
        self.pretrained_windows_assumed = False
        self.pretrained_windows_stated = stated

    @property
    def window_sizes(self) -> tuple[Size, ...]:
        """The window (height, width) of each stage, in tokens."""
        return tuple(_get_inside(stage, "window_size") for stage in self.layers)

    @property
    def small_map_rule(self) -> str:
        """The rule for maps of one window or less, "per_axis" or "square"."""
        return SMALL_MAP_RULES[self.layers[0].square_small_maps]

    @property
    def pretrained_window_sizes(self) -> tuple[Size, ...]:
        """The pretrained window (height, width) of the position bias of each stage."""
        return tuple(_get_inside(stage, "pretrained_window") for stage in self.layers)

    def train(self, mode: bool = True) -> SwinV2:
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def _frozen_parts(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        return [self.patch_embed, *self.layers[: self.frozen_stages]]

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, SwinV2Block):
                # Every block starts as the identity (paper, section 3.2: res-post-norm).
                for norm in (module.norm1, module.norm2):
                    nn.init.zeros_(norm.weight)

    def _check_images(self, images: Tensor, sizes: Sequence[Size] | None) -> tuple[Size, ...]:
        if images.ndim != 4 or images.shape[1] != self.in_channels or 0 in images.shape:
            raise ValueError(
                f"images must be (B, {self.in_channels}, H, W) without empty axes, "
                f"got {tuple(images.shape)}"
            )
        if not images.is_floating_point():
            raise ValueError(
                f"images must be floating point (normalized by mean and std), got {images.dtype}"
            )
        height, width = images.shape[-2:]
        if sizes is None:
            return ((height, width),) * len(images)
        if any(not isinstance(size, Sequence) or len(size) != 2 for size in sizes):
            raise ValueError(f"image_sizes must be (height, width) pairs, got {sizes!r}")
        sizes = tuple((int(h), int(w)) for h, w in sizes)
        if len(sizes) != len(images):
            raise ValueError(f"{len(sizes)} image_sizes for {len(images)} images")
        for h, w in sizes:
            if torch.compiler.is_compiling():  # sizes may depend on the values of images
                for length, most in ((h, height), (w, width)):
                    torch._check(length >= 1)
                    torch._check(length <= most)
            elif not (1 <= h <= height and 1 <= w <= width):
                raise ValueError(f"image size ({h}, {w}) is not within (1, 1) .. {height, width}")
        return sizes


def _set_inside(module: nn.Module, name: str, value: Any) -> None:
    """Set an attribute wherever a module or one inside has it, whatever wraps that one."""
    for part in module.modules():
        if name in vars(part):
            setattr(part, name, value)


def _get_inside(module: nn.Module, name: str) -> Any:
    """Return an attribute of a module or of the first one inside that has it."""
    return next(vars(part)[name] for part in module.modules() if name in vars(part))
