"""The parameters that a block passes to the kernels that compute it as a whole."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

LAYER_NORM_EPS = 1e-5  # PyTorch's default, which the kernels assume


class BlockParameters(NamedTuple):
    """Parameters of a SwinV2 block up to its ``norm3``, in the order of its forward.

    They do not include the position bias: a kernel takes the bias as a table, or the parameters of
    its MLP (``position_bias.BiasParameters``).
    """

    qkv: Tensor  # (3C, C)
    q_bias: Tensor  # (C,)
    v_bias: Tensor  # (C,)
    logit_scale: Tensor  # (nH, 1, 1)
    proj: Tensor  # (C, C)
    proj_bias: Tensor  # (C,)
    norm1: Tensor  # (C,)
    norm1_bias: Tensor  # (C,)
    fc1: Tensor  # (4C, C)
    fc1_bias: Tensor  # (4C,)
    fc2: Tensor  # (C, 4C)
    fc2_bias: Tensor  # (C,)
    norm2: Tensor  # (C,)
    norm2_bias: Tensor  # (C,)


def parameter_shapes(channels: int, heads: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every field of :class:`BlockParameters`, in order."""
    vector, hidden = (channels,), 4 * channels
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(BlockParameters._fields, vector)
    return shapes | {
        "qkv": (3 * channels, channels),
        "logit_scale": (heads, 1, 1),
        "proj": (channels, channels),
        "fc1": (hidden, channels),
        "fc1_bias": (hidden,),
        "fc2": (channels, hidden),
    }
