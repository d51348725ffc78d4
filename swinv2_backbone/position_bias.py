"""Log-spaced continuous position bias (paper section 3.3, equations 4 to 6): offset -> bias.

A small MLP maps the log-spaced offset of two tokens to one bias per head.  It maps coordinates, not
table entries, so a window of any size has a bias; the coordinates are always normalized by the
pretrained window, so the bias of an offset does not change with the window.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.checkpoint import checkpoint

from swinv2_backbone.packing import Size
from swinv2_backbone.plain import Parts
from swinv2_backbone.precision import accumulation_dtype, evaluation_dtype

HIDDEN = 512  # width K of the MLP in every published model


class BiasParameters(NamedTuple):
    """Parameters of the MLP of a position bias."""

    weight1: Tensor  # (K, 2)
    bias1: Tensor  # (K,)
    weight2: Tensor  # (nH, K)


def log_spaced_offsets(
    length: int, pretrained: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return the coordinates t (2 * length - 1,) of the offsets d = 1 - length .. length - 1.

    ``t = sign(d) * log2(1 + |8 d / (p - 1)|) / log2(8)`` along one axis, with p the pretrained
    window.
    """
    offsets = torch.arange(1 - length, length, device=device, dtype=dtype)
    offsets = 8 * offsets / max(pretrained - 1, 1)  # p = 1: the only offset is 0
    return offsets.sign() * torch.log2(1 + offsets.abs()) / math.log2(8)


def offset_grid(window: Size, pretrained: Size, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the log-spaced offsets of a window, ((2 Mh - 1) * (2 Mw - 1), 2), row by row."""
    axes = (log_spaced_offsets(m, p, device, dtype) for m, p in zip(window, pretrained))
    return torch.cartesian_prod(*axes)


def bias_of_offsets(offsets: Tensor, parameters: BiasParameters) -> Tensor:
    """Compute ``16 * sigmoid(mlp(offsets))`` (nH, n) for (n, 2) offsets, in their dtype."""
    weight1, bias1, weight2 = (parameter.to(offsets.dtype) for parameter in parameters)
    hidden = F.linear(offsets, weight1, bias1).relu_()
    return (16 * torch.sigmoid(F.linear(hidden, weight2))).t().contiguous()


_steps = 0  # of all optimizers; a fused one changes weights without raising their version


def _count_step(*_: Any) -> None:
    global _steps
    _steps += 1


register_optimizer_step_post_hook(_count_step)


class PositionBias(nn.Sequential):
    """The bias ``16 * sigmoid(mlp(t_h, t_w))`` of every offset in a window.

    It is a Sequential so that its parameters have the names of the published files
    (``cpb_mlp.0.*``, ``cpb_mlp.2.weight``).  In training, and whenever its weights get gradients,
    the MLP runs in every call.  Otherwise the result is cached until the weights change, a layer is
    replaced, the module moves or its mode is set again.  (A write through ``parameter.data`` is not
    detected: call ``eval()`` after it.)

    Layers that are not plain (see plain.py) are called, in every forward, in their own dtype.

    Args:
        num_heads: one bias per head.
        pretrained_window: (ph, pw), the window the weights were trained with; it normalizes the
            offsets.
    """

    def __init__(self, num_heads: int, pretrained_window: Size):
        super().__init__(nn.Linear(2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, num_heads, bias=False))
        self.pretrained_window = pretrained_window
        self._cache: dict[Size, Tensor] = {}
        self._cached_for: tuple[Any, ...] = ()
        self._parts = Parts(self)

    def forward(self, window: Size) -> Tensor:
        """Return the bias (nH, (2 Mh - 1) * (2 Mw - 1)) of every offset in a window, row by row."""
        if torch.compiler.is_compiling():  # a graph cannot hold a cache
            return self.table(window)
        plain = None if self._may_change() else self.mlp_parameters()
        if plain is None or (torch.is_grad_enabled() and any(p.requires_grad for p in plain)):
            self._cache.clear()
            return self.table(window)
        return self._cached_table(window, plain)

    def table(self, window: Size) -> Tensor:
        """Compute the result of :meth:`forward`."""
        parameters = self.mlp_parameters()
        if parameters is None:
            return self._table_by_layers(window)
        device = parameters.weight1.device
        # At least float32 whatever the model's dtype: half precision would round biases up to 16.
        dtype = accumulation_dtype(parameters.weight1.dtype)
        offsets = offset_grid(
            window, self.pretrained_window, device, evaluation_dtype(dtype, device)
        )
        with torch.autocast(device.type, enabled=False):
            return bias_of_offsets(offsets, parameters).to(dtype)

    def mlp_parameters(self) -> BiasParameters | None:
        """Return the parameters of the MLP, or None if its layers must be called."""
        found = self._parts.parameters(self)
        if found is None:
            return None
        return BiasParameters(found["0.weight"], found["0.bias"], found["2.weight"])

    def _may_change(self) -> bool:
        """Return True in training, and for a replica of DataParallel."""
        return self.training or getattr(self, "_is_replica", False)

    def _table_by_layers(self, window: Size) -> Tensor:
        """Compute :meth:`table` by calling the layers, in the dtype of their weights."""
        weights = (tensor for tensor in self.parameters() if tensor.is_floating_point())
        like = next(weights, torch.empty(0))  # quantized layers may have no parameters
        offsets = offset_grid(window, self.pretrained_window, like.device, like.dtype)
        with torch.autocast(like.device.type, enabled=False):
            biases = super().forward(offsets)  # (offsets, nH)
            biases = biases.to(accumulation_dtype(biases.dtype))
            return (16 * torch.sigmoid(biases)).t().contiguous()

    def _cached_table(self, window: Size, parameters: BiasParameters) -> Tensor:
        # In-place changes of a weight (load_state_dict, most optimizers) raise its version; moving
        # the module or replacing a parameter changes its storage.
        # (Inference tensors have no version; a model loaded in inference mode must not change.)
        state = (
            self.pretrained_window,
            _steps,
            *((p.data_ptr(), 0 if p.is_inference() else p._version, p.dtype) for p in parameters),
        )
        if state != self._cached_for:
            self._cache.clear()
            self._cached_for = state
        table = self._cache.get(window)  # local, as another thread may clear the cache
        if table is None:
            # The cached table must not be an inference tensor, which autograd could not use.
            with torch.inference_mode(False), torch.no_grad():
                table = self._cache[window] = self.table(window)
        return table

    def train(self, mode: bool = True) -> PositionBias:
        self._cache.clear()
        return super().train(mode)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        # An adapter that is removed again may have changed the weights through ``parameter.data``.
        if isinstance(value, nn.Module):
            self._cache.clear()


def recomputed_table(bias: nn.Module, window: Size) -> Tensor:
    """Return ``bias(window)``; the backward pass recomputes the activations of its MLP.

    For large windows these activations take a lot of memory.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return bias(window)
    return checkpoint(bias, window, use_reentrant=False, preserve_rng_state=False)


def bias_matrix(offsets: Tensor) -> Tensor:
    """(nH, 2 h - 1, 2 w - 1) -> (nH, N, N): the bias from query i to key j, of N = h * w tokens."""
    height, width = ((length + 1) // 2 for length in offsets.shape[1:])
    index = offset_index((height, width), offsets.device)
    tokens = height * width
    return offsets.flatten(1).index_select(1, index).view(-1, tokens, tokens)


def offsets_within(table: Tensor, window: Size, size: Size) -> Tensor:
    """Return a view (nH, 2 h - 1, 2 w - 1) of a window's ``table``: the offsets within (h, w)."""
    (mh, mw), (h, w) = window, size
    rows = table.unflatten(1, (2 * mh - 1, 2 * mw - 1))
    return rows[:, mh - h : mh + h - 1, mw - w : mw + w - 1]


@lru_cache(maxsize=16)  # 4 bytes for every pair of tokens: 21 MB each for windows of 48
def offset_index(window: Size, device: torch.device) -> Tensor:
    """Return the index in the table of the offset from query i to key j, (N * N,) int32.

    Offset (dh, dw) is at ``(dh + Mh - 1) * (2 Mw - 1) + (dw + Mw - 1)``.
    """
    # The result is cached, so it must not be an inference tensor: autograd could not use it.
    with torch.inference_mode(False):
        row, col = torch.cartesian_prod(*(torch.arange(length) for length in window)).unbind(1)
        d_h = row[:, None] - row[None, :] + window[0] - 1
        d_w = col[:, None] - col[None, :] + window[1] - 1
        return (d_h * (2 * window[1] - 1) + d_w).flatten().int().to(device)
