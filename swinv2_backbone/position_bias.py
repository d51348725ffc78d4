"""Log-spaced continuous position bias (paper section 3.3, equations 4 to 6): offset -> bias.

A small MLP maps the log-spaced offset of two tokens to one bias a head.  Because it maps
coordinates, not table entries, a window of any size has a bias; because the coordinates are always
normalised by the window of pre-training, the bias of an offset never changes with the window.
"""

from __future__ import annotations

import math
from functools import lru_cache
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinv2_backbone.windows import Size

HIDDEN = 512  # width of the MLP in every published model


def log_spaced_offsets(
    length: int, pretrained: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """(2 * length - 1,) coordinates t of the offsets d = -(length - 1) .. length - 1 on one axis.

    ``t = sign(d) * log2(1 + |8 d / (p - 1)|) / log2(8)`` with p the ``pretrained`` window.
    """
    offsets = torch.arange(1 - length, length, device=device, dtype=dtype)
    offsets = 8 * offsets / max(pretrained - 1, 1)  # p = 1 knows the offset 0 alone
    return offsets.sign() * torch.log2(1 + offsets.abs()) / math.log2(8)


def offset_grid(window: Size, pretrained: Size, device: torch.device, dtype: torch.dtype) -> Tensor:
    """((2 Mh - 1) * (2 Mw - 1), 2): the log-spaced offsets in a window, row by row."""
    axes = (log_spaced_offsets(m, p, device, dtype) for m, p in zip(window, pretrained))
    return torch.cartesian_prod(*axes)


def inner_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """In which the bias is computed.

    A product sums in another order in a table of another size.  In float64, which is cheap here,
    that is far below the last bit of the float32 result.
    """
    return dtype if device.type == "mps" else torch.float64  # which mps lacks


def bias_of_offsets(offsets: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor) -> Tensor:
    """(nH, n): ``16 * sigmoid(mlp(offsets))`` of (n, 2) log-spaced offsets, in their dtype."""
    hidden = F.linear(offsets, weight1.to(offsets.dtype), bias1.to(offsets.dtype)).relu_()
    return (16 * torch.sigmoid(F.linear(hidden, weight2.to(offsets.dtype)))).t().contiguous()


class PositionBias(nn.Sequential):
    """The bias ``16 * sigmoid(mlp(t_h, t_w))`` of every offset in a window.

    A Sequential, so that its parameters are named as in the published files (``cpb_mlp.0.*``,
    ``cpb_mlp.2.weight``).  In training the table of offsets goes through the MLP once a call; in
    eval once ever, until the weights change, the module moves or its mode is set again.  (A write
    through ``parameter.data`` leaves no trace: call ``eval()`` after it.)

    Args:
        num_heads: one bias a head.
        pretrained_window: (ph, pw), the window the weights were trained with; normalises offsets.
    """

    def __init__(self, num_heads: int, pretrained_window: Size):
        super().__init__(
            nn.Linear(2, HIDDEN), nn.ReLU(inplace=True), nn.Linear(HIDDEN, num_heads, bias=False)
        )
        self.pretrained_window = pretrained_window
        self._cache: dict[Size, Tensor] = {}
        self._cached_for: tuple = ()

    def forward(self, window: Size) -> Tensor:
        """(nH, (2 Mh - 1) * (2 Mw - 1)): the bias of every offset in a window, row by row."""
        if torch.compiler.is_compiling():  # a cache is not something that a graph can hold
            return self.table(window)
        learning = torch.is_grad_enabled() and any(p.requires_grad for p in self._weights())
        if self.training or learning or getattr(self, "_is_replica", False):  # of a DataParallel
            self._cache.clear()  # an optimiser may follow; fused ones raise no version
            return self.table(window)
        return self._cached_table(window)

    def table(self, window: Size) -> Tensor:
        """What :meth:`forward` gives, computed."""
        fc1, fc2 = self[0], self[2]
        device = fc1.weight.device
        # At least float32 whatever the model's dtype: half precision would round biases up to 16.
        dtype = torch.promote_types(fc1.weight.dtype, torch.float32)
        offsets = offset_grid(window, self.pretrained_window, device, inner_dtype(dtype, device))
        with torch.autocast(device.type, enabled=False):
            return bias_of_offsets(offsets, fc1.weight, fc1.bias, fc2.weight).to(dtype)

    def _weights(self) -> tuple[Tensor, ...]:
        return self[0].weight, self[0].bias, self[2].weight

    def _cached_table(self, window: Size) -> Tensor:
        # In-place changes of a weight (an optimiser, load_state_dict) raise its version; moving
        # the module or replacing a parameter changes its storage.
        # (Inference tensors have no version: a model that was loaded in inference mode is final.)
        state = (
            self.pretrained_window,
            *(
                (p.data_ptr(), 0 if p.is_inference() else p._version, p.dtype)
                for p in self._weights()
            ),
        )
        if state != self._cached_for:
            self._cache.clear()
            self._cached_for = state
        table = self._cache.get(window)  # kept here: another thread may clear the cache
        if table is None:
            # Outlives this forward, so not an inference tensor, which autograd could not use.
            with torch.inference_mode(False), torch.no_grad():
                table = self._cache[window] = self.table(window)
        return table

    def train(self, mode: bool = True) -> PositionBias:
        self._cache.clear()
        return super().train(mode)


def bias_matrix(offsets: Tensor) -> Tensor:
    """(nH, 2 h - 1, 2 w - 1) -> (nH, N, N): from the bias of offsets to that from query i to key j.

    N = h * w tokens.
    """
    size = tuple((length + 1) // 2 for length in offsets.shape[1:])
    index = offset_index(size, offsets.device)
    return offsets.flatten(1).index_select(1, index).view(-1, prod(size), prod(size))


def offsets_within(table: Tensor, window: Size, size: Size) -> Tensor:
    """(nH, 2 h - 1, 2 w - 1), a view: of the ``table`` of a window the offsets within (h, w)."""
    (mh, mw), (h, w) = window, size
    rows = table.unflatten(1, (2 * mh - 1, 2 * mw - 1))
    return rows[:, mh - h : mh + h - 1, mw - w : mw + w - 1]


@lru_cache(maxsize=16)  # 4 bytes for every pair of tokens: 21 MB each for windows of 48
def offset_index(window: Size, device: torch.device) -> Tensor:
    """(N * N,) int32, the place in the table of the offset from every query i to every key j.

    Offset (dh, dw) stands at ``(dh + Mh - 1) * (2 Mw - 1) + (dw + Mw - 1)``.
    """
    # Kept beyond this forward, so not an inference tensor, which autograd could not use later.
    with torch.inference_mode(False):
        row, col = torch.cartesian_prod(*(torch.arange(length) for length in window)).unbind(1)
        d_h = row[:, None] - row[None, :] + window[0] - 1
        d_w = col[:, None] - col[None, :] + window[1] - 1
        return (d_h * (2 * window[1] - 1) + d_w).flatten().int().to(device)
