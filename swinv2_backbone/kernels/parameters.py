"""The parameters of a block as the kernels that compute whole blocks take them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from swinv2_backbone.position_bias import HIDDEN
from swinv2_backbone.windows import Size

LINEAR = ("qkv", "proj", "fc1", "fc2")


class BlockWeights(NamedTuple):
    """The parameters of a block's linear layers and norms, in the order of its forward."""

    qkv: Tensor
    qkv_bias: Tensor
    proj: Tensor
    proj_bias: Tensor
    norm1: Tensor
    norm1_bias: Tensor
    fc1: Tensor
    fc1_bias: Tensor
    fc2: Tensor
    fc2_bias: Tensor
    norm2: Tensor
    norm2_bias: Tensor


class BlockParameters(NamedTuple):
    """All parameters of a block up to its ``norm3``, as they are."""

    qkv: Tensor
    q_bias: Tensor
    v_bias: Tensor
    proj: Tensor
    proj_bias: Tensor
    norm1: Tensor
    norm1_bias: Tensor
    fc1: Tensor
    fc1_bias: Tensor
    fc2: Tensor
    fc2_bias: Tensor
    norm2: Tensor
    norm2_bias: Tensor
    logit_scale: Tensor
    cpb1: Tensor
    cpb1_bias: Tensor
    cpb2: Tensor


def shapes_of_parameters(channels: int, heads: int) -> BlockParameters:
    """The sizes of a block's parameters, in their places."""
    c, one, hidden = channels, (channels,), 4 * channels
    return BlockParameters(
        qkv=(3 * c, c),
        q_bias=one,
        v_bias=one,
        proj=(c, c),
        proj_bias=one,
        norm1=one,
        norm1_bias=one,
        fc1=(hidden, c),
        fc1_bias=(hidden,),
        fc2=(c, hidden),
        fc2_bias=one,
        norm2=one,
        norm2_bias=one,
        logit_scale=(heads, 1, 1),
        cpb1=(HIDDEN, 2),
        cpb1_bias=(HIDDEN,),
        cpb2=(heads, HIDDEN),
    )


def parameters_of(block: nn.Module) -> BlockParameters:
    """Those of a ``SwinV2Block``."""
    attn, mlp = block.attn, block.mlp
    qkv, proj, fc1, fc2, cpb = attn.qkv, attn.proj, mlp.fc1, mlp.fc2, attn.cpb_mlp
    norm1, norm2, cpb1 = block.norm1, block.norm2, cpb[0]
    return BlockParameters(
        qkv.weight,
        attn.q_bias,
        attn.v_bias,
        proj.weight,
        proj.bias,
        norm1.weight,
        norm1.bias,
        fc1.weight,
        fc1.bias,
        fc2.weight,
        fc2.bias,
        norm2.weight,
        norm2.bias,
        attn.logit_scale,
        cpb1.weight,
        cpb1.bias,
        cpb[2].weight,
    )


def weights_of(block: nn.Module) -> BlockWeights:
    """Those of a ``SwinV2Block``."""
    attn, mlp = block.attn, block.mlp
    return BlockWeights(
        attn.qkv.weight,
        attn.qkv_bias,
        attn.proj.weight,
        attn.proj.bias,
        block.norm1.weight,
        block.norm1.bias,
        mlp.fc1.weight,
        mlp.fc1.bias,
        mlp.fc2.weight,
        mlp.fc2.bias,
        block.norm2.weight,
        block.norm2.bias,
    )


def table_of(bias: nn.Module, window: Size, keep_activations: bool) -> Tensor:
    """The position bias of every offset; of a large window its MLP has much to keep, too."""
    if keep_activations or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return bias(window)
    return checkpoint(bias, window, use_reentrant=False, preserve_rng_state=False)
