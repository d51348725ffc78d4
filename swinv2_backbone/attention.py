"""Scaled cosine attention over windows (paper section 3.2, equation 2).

Legend: nW windows of the whole batch; N tokens in a window (Mh * Mw); nH heads; d channels a head;
C = nH * d.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinv2_backbone.position_bias import PositionBias
from swinv2_backbone.windows import Size

MAX_LOGIT_SCALE = math.log(100)


def cosine_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, bias: Tensor, forbidden: Tensor | None
) -> Tensor:
    """``softmax(cos(q, k) * scale + bias) v``: the reference that faster ways are tested against.

    Args:
        q, k, v: (nW, nH, N, d).
        scale: (nH, 1, 1), up to 100, float32 or float64.
        bias: (nH, N, N), in (0, 16), float32 or float64.
        forbidden: (nW, N, N), True where query i must not attend to key j; or None.

    Returns:
        (nW, nH, N, d) in the dtype of ``v``.
    """
    # Logits reach 116: half precision would round them by up to 0.25, so they stay in float32.
    # The eps keeps the gradient of an empty seat (q = k = 0) finite.
    precise = torch.promote_types(v.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        q = F.normalize(q.to(precise), dim=-1, eps=1e-6) * scale
        k = F.normalize(k.to(precise), dim=-1, eps=1e-6)
        logits = (q @ k.transpose(-2, -1)).add_(bias)  # (nW, nH, N, N)
        if forbidden is not None:
            # -inf, not -100: cosine logits span more than 200, so that -100 is within their range.
            logits = logits.masked_fill_(forbidden[:, None], -math.inf)
        return logits.softmax(dim=-1).to(v.dtype) @ v


class WindowAttention(nn.Module):
    """Multi-head scaled cosine attention within windows, with a log-CPB position bias.

    Args:
        dim: channels C.
        num_heads: heads nH, a divisor of ``dim``.
        pretrained_window: (ph, pw), the window that normalises the offsets of the bias.
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

    def forward(self, windows: Tensor, window: Size, forbidden: Tensor | None) -> Tensor:
        """(nW, N, C) -> (nW, N, C) for a ``window`` of N = Mh * Mw tokens.

        ``forbidden``: (nW, N, N), True where query i must not attend to key j; or None.
        """
        qkv_bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = F.linear(windows, self.qkv.weight, qkv_bias)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        precise = torch.promote_types(self.logit_scale.dtype, torch.float32)
        scale = self.logit_scale.to(precise).clamp(max=MAX_LOGIT_SCALE).exp()
        out = cosine_attention(q, k, v, scale, self.cpb_mlp(window), forbidden)
        return self.proj(out.transpose(1, 2).flatten(2))
