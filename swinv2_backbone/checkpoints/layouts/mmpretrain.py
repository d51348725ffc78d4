"""mmpretrain (and mmdetection, mmsegmentation): merging gathers 2x2 tokens by ``Unfold``."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from swinv2_backbone.checkpoints.layouts.layout import Layout, Tensors, same

REDUCTION = "downsample.reduction.weight"


def from_unfold(tensors: Tensors) -> Tensors:
    """Reorder the columns of the merging weights from Unfold's order to ours.

    Unfold yields the four pixels of a channel, then the next channel: (C, [h0w0, h0w1, h1w0,
    h1w1]).  Our order is all channels of a pixel, then the next pixel: ([h0w0, h1w0, h0w1, h1w1],
    C).
    """

    def reorder(weight: Tensor) -> Tensor:  # (2C, 4C)
        out, columns = weight.shape
        by_pixel = weight.reshape(out, columns // 4, 4)[:, :, [0, 2, 1, 3]]
        return by_pixel.transpose(1, 2).reshape(out, columns)

    return {name: _merging(name, value, reorder) for name, value in tensors.items()}


def to_unfold(tensors: Tensors) -> Tensors:
    """Invert :func:`from_unfold`."""

    def reorder(weight: Tensor) -> Tensor:
        out, columns = weight.shape
        by_channel = weight.reshape(out, 4, columns // 4)[:, [0, 2, 1, 3]]
        return by_channel.transpose(1, 2).reshape(out, columns)

    return {name: _merging(name, value, reorder) for name, value in tensors.items()}


def _merging(name: str, value: Tensor, reorder: Callable[[Tensor], Tensor]) -> Tensor:
    # A weight with an unexpected shape is left unchanged; the shape check reports it.
    possible = name.endswith(REDUCTION) and value.ndim == 2 and value.shape[1] % 4 == 0
    return reorder(value) if possible else value


MMPRETRAIN = Layout(
    name="mmpretrain",
    root="backbone.",
    stem={"patch_embed.proj": "patch_embed.projection", **same("patch_embed.norm")},
    downsample="stages.{i}.downsample",
    blocks="stages.{i}.blocks",
    in_block={
        "attn.logit_scale": "attn.w_msa.logit_scale",
        "attn.q_bias": "attn.w_msa.q_bias",
        "attn.v_bias": "attn.w_msa.v_bias",
        "attn.cpb_mlp": "attn.w_msa.cpb_mlp",
        "attn.qkv": "attn.w_msa.qkv",
        "attn.proj": "attn.w_msa.proj",
        "norm1": "norm1",
        "mlp.fc1": "ffn.layers.0.0",
        "mlp.fc2": "ffn.layers.1",
        "norm2": "norm2",
        "norm3": "norm3",
    },
    norms={
        "norms.res2": "norm0",
        "norms.res3": "norm1",
        "norms.res4": "norm2",
        "norms.res5": "norm3",
    },
    head="head.fc",
    small_map_rule="square",
    to_ours=from_unfold,
    from_ours=to_unfold,
)
