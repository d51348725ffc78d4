"""Scaled cosine attention over windows (paper section 3.2, equation 2).

Legend: T tokens of the whole batch, packed; nW windows; N tokens per window (Mh * Mw); nH heads; d
channels per head; C = nH * d.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinv2_backbone.packing import Size
from swinv2_backbone.plain import is_plain
from swinv2_backbone.position_bias import PositionBias, bias_matrix, offsets_within
from swinv2_backbone.precision import accumulation_dtype
from swinv2_backbone.windows import Partition, WindowLayout, window_layout

# (qkv, scale, table, partition) -> attended tokens, see window_attention
Attend = Callable[[Tensor, Tensor, Tensor, Partition], Tensor]

MAX_LOGIT_SCALE = math.log(100)


def exp_logit_scale(logit_scale: Tensor) -> Tensor:
    """Return the cosine scale: at most 100, in at least float32."""
    return logit_scale.to(accumulation_dtype(logit_scale.dtype)).clamp(max=MAX_LOGIT_SCALE).exp()


def join_qkv_bias(q_bias: Tensor, v_bias: Tensor) -> Tensor:
    """Return the qkv bias (3C,); the part for the keys is zero."""
    return torch.cat((q_bias, torch.zeros_like(q_bias), v_bias))


def cosine_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, bias: Tensor, attn_mask: Tensor | None
) -> Tensor:
    """Compute ``softmax(cos(q, k) * scale + bias) v``, the reference for the kernels.

    Args:
        q, k, v: (nW, nH, N, d).
        scale: (nH, 1, 1), at most 100, float32 or float64.
        bias: (nH, N, N), in (0, 16), float32 or float64.
        attn_mask: (nW, N, N), True where query i must not attend to key j; or None.

    Returns:
        (nW, nH, N, d) in the dtype of ``v``.
    """
    # Logits reach 116, which bfloat16 would round by up to 0.25: compute in at least float32.
    # The eps keeps the gradient of an empty slot (q = k = 0) finite.
    precise = accumulation_dtype(v.dtype)
    with torch.autocast(q.device.type, enabled=False):
        q = F.normalize(q.to(precise), dim=-1, eps=1e-6) * scale
        k = F.normalize(k.to(precise), dim=-1, eps=1e-6)
        logits = (q @ k.transpose(-2, -1)).add_(bias)  # (nW, nH, N, N)
        if attn_mask is not None:
            # -inf, not -100: cosine logits span more than 200, so -100 is within their range.
            logits = logits.masked_fill_(attn_mask[:, None], -math.inf)
        return logits.softmax(dim=-1).to(v.dtype) @ v


def window_attention(qkv: Tensor, scale: Tensor, table: Tensor, partition: Partition) -> Tensor:
    """Compute attention within windows: the reference implementation.

    Args:
        qkv: (T, 3C), the queries, keys and values of the packed tokens.
        scale: (nH, 1, 1), see :func:`cosine_attention`.
        table: (nH, offsets), the bias of every offset in a window.
        partition: the windows.

    Returns:
        (T, C).
    """
    layout = window_layout(partition, qkv.device)
    bias = bias_matrix(offsets_within(table, partition.window, layout.window))
    return attend_in_windows(qkv, scale, bias, layout)


def attend_in_windows(qkv: Tensor, scale: Tensor, bias: Tensor, layout: WindowLayout) -> Tensor:
    """(T, 3C) -> (T, C), with the bias (nH, N, N) of the layout's windows."""
    q, k, v = layout.to_windows(qkv).unflatten(-1, (3, len(scale), -1)).permute(2, 0, 3, 1, 4)
    out = cosine_attention(q, k, v, scale, bias, layout.attn_mask())
    return layout.to_tokens(out.transpose(1, 2).flatten(2))


class WindowAttention(nn.Module):
    """Multi-head scaled cosine attention within windows, with a log-CPB position bias.

    Args:
        dim: channels C.
        num_heads: heads nH, a divisor of ``dim``.
        pretrained_window: (ph, pw), see :class:`PositionBias`.
    """

    def __init__(self, dim: int, num_heads: int, pretrained_window: Size):
        super().__init__()
        self.num_heads = num_heads
        self.logit_scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(10)))
        self.cpb_mlp = PositionBias(num_heads, pretrained_window)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, tokens: Tensor, partition: Partition, attend: Attend = window_attention
    ) -> Tensor:
        """(T, C) -> (T, C); ``attend``: :func:`window_attention` or a faster implementation."""
        if is_plain(self.qkv, nn.Linear) and self.qkv.bias is None:
            # The layer itself has no bias, because keys have none.
            qkv = F.linear(tokens, self.qkv.weight, self.qkv_bias)
        else:
            qkv = self.qkv(tokens)
            qkv = qkv + self.qkv_bias.to(qkv.dtype)
        return self.proj(attend(qkv, self.scale, self.cpb_mlp(partition.window), partition))

    @property
    def qkv_bias(self) -> Tensor:
        """The bias (3C,) of queries, keys and values."""
        return join_qkv_bias(self.q_bias, self.v_bias)

    @property
    def scale(self) -> Tensor:
        """The cosine scale (nH, 1, 1): at most 100, in at least float32."""
        return exp_logit_scale(self.logit_scale)
