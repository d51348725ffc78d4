"""The attention of one block on a GPU: our kernel, PyTorch's, and the roofline.

The input is q, k and v of packed tokens (3C numbers per token), the output the attended tokens of
shifted windows.  Forward, and forward with backward, are timed in a CUDA graph that repeats the
call, which excludes the time of Python.

- "SDPA": ``scaled_dot_product_attention`` with the bias and mask of every window as one tensor,
  including the operations that it needs: tokens to windows and back, and the norms of q and k.
- "SDPA, core" and "FlexAttention, core": the attention call alone, on existing windows of
  normalized q and k.

SDPA computes no gradient of the bias; FlexAttention ignores the mask of shifted windows.

The roofline is the longer of two times: that of the bytes that must be moved, at the speed of a
large copy (forward: q, k, v and the result; backward: these, the gradient of the result, and the
gradients of q, k and v), and that of the matrix products, at the speed of a large product (two in
the forward, five in the backward).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarking.machine import describe
from benchmarking.results import Content
from benchmarking.settings import Setting
from swinv2_backbone.attention import window_attention
from swinv2_backbone.packing import flat_sizes
from swinv2_backbone.position_bias import bias_matrix, offsets_within
from swinv2_backbone.windows import Partition, window_layout

Passes = tuple[Callable[[], Tensor], Callable[[], object]]  # forward, forward with backward

OURS, SDPA, SDPA_CORE, FLEX_CORE = "ours", "SDPA", "SDPA, core", "FlexAttention, core"
MILLISECONDS = 20  # of measuring each call
COPIED, MULTIPLIED = 2**29, 8192  # elements, and side of a square matrix, for the two ceilings
TOLERANCE = 2e-2


def unfit(setting: Setting) -> str | None:
    """Return why attention cannot be compared at a setting, or None."""
    if setting.device != "cuda" or setting.dtype == "float32":
        return "attention is compared on a GPU, in half precision"
    return None


def compare_attention(setting: Setting) -> Content:
    """Time every candidate at the first stage; return the content of a result.

    The first stage has the most tokens and the fewest channels.
    """
    bandwidth, rate = ceilings(setting)
    case = _Case(setting)
    expected = window_attention(case.qkv.double(), case.scale, case.table, case.partition)
    rows, failed = {}, {}
    for name, make in CANDIDATES.items():
        try:
            forward, both = make(case)
            if name in (OURS, SDPA):
                error = ((forward() - expected).abs().max() / expected.abs().max()).item()
                if not error < TOLERANCE:
                    raise ValueError(f"its result is off by {error:.1e}")
            seconds = [_seconds(call) for call in (forward, both)]
        except Exception as error:  # noqa: BLE001 - foreign code may raise anything
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        floors = [max(b / bandwidth, f / rate) for b, f in case.work()]
        rows[name] = {
            "seconds": seconds,
            "roofline": [floor / own for floor, own in zip(floors, seconds)],
        }
    return {
        "setting": setting.as_json(),
        "machine": describe(setting.device, setting.threads),
        "bandwidth": bandwidth,
        "rate": rate,
        "rows": rows,
        "failed": failed,
    }


def ceilings(setting: Setting) -> tuple[float, float]:
    """Measure the bytes per second of a copy and the operations per second of a product."""
    random = partial(torch.randn, device=setting.device, dtype=setting.torch_dtype)
    source, target = (random(COPIED) for _ in range(2))
    left, right = (random(MULTIPLIED, MULTIPLIED) for _ in range(2))
    copying, multiplying = _seconds(lambda: target.copy_(source)), _seconds(lambda: left @ right)
    return 2 * source.nbytes / copying, 2 * MULTIPLIED**3 / multiplying


def _seconds(call: Callable[[], object]) -> float:
    """Return the median time of a call in a CUDA graph, which excludes the time of Python."""
    from triton.testing import do_bench_cudagraph

    return do_bench_cudagraph(call, rep=MILLISECONDS, return_mode="median") / 1e3


class _Case:
    """Tokens and parameters of the first stage, the same for every candidate."""

    def __init__(self, setting: Setting):
        size, heads = setting.maps[0], setting.variant.num_heads[0]
        self.setting = setting
        self.partition = Partition((size,) * setting.batch, (setting.window,) * 2, True)
        self.tokens, self.channels = setting.batch * prod(size), setting.variant.embed_dim
        generator = torch.Generator(setting.device).manual_seed(0)
        random = partial(torch.randn, generator=generator, device=setting.device)
        self.qkv, self.grad = (
            random(self.tokens, width * self.channels).to(setting.torch_dtype) for width in (3, 1)
        )
        self.scale = torch.full((heads, 1, 1), 10.0, device=setting.device)
        self.table = 16 * torch.rand(
            heads, (2 * setting.window - 1) ** 2, generator=generator, device=setting.device
        )

    def work(self) -> Iterator[tuple[int, int]]:
        """Yield bytes and operations of forward, and of forward with backward."""
        row = self.tokens * self.channels
        product = 2 * row * self.setting.window**2
        for rows, products in ((4, 2), (12, 7)):
            yield rows * row * self.qkv.element_size(), products * product

    def windows(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k, v (nW, nH, N, d); q and k are normalized, and q is scaled."""
        layout = window_layout(self.partition, qkv.device)
        parts = layout.to_windows(qkv).unflatten(-1, (3, len(self.scale), -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        q = F.normalize(q, dim=-1) * self.scale.to(q.dtype)
        return q, F.normalize(k, dim=-1), v

    def masks(self) -> Tensor:
        """Return the bias (nW, nH, N, N), -inf where attention is masked."""
        layout = window_layout(self.partition, self.qkv.device)
        bias = bias_matrix(offsets_within(self.table, self.partition.window, layout.window))
        attn_mask = layout.attn_mask()
        assert attn_mask is not None, "the windows are shifted"
        whole = bias.to(self.qkv.dtype).expand(len(attn_mask), -1, -1, -1)
        return whole.masked_fill(attn_mask[:, None], float("-inf"))


def _ours(case: _Case) -> Passes:
    from swinv2_backbone.kernels.triton import attention as kernels

    sizes, window, *rules = case.partition
    given = kernels.Arguments(
        case.qkv, case.scale.flatten(), case.table, flat_sizes(sizes), list(window), *rules
    )

    def both() -> object:
        out, lse = kernels.attention(given)
        return kernels.attention_backward(case.grad, out, lse, given)

    return lambda: kernels.attention(given)[0], both


def _sdpa(case: _Case) -> Passes:
    layout, mask = window_layout(case.partition, case.qkv.device), case.masks()
    qkv = case.qkv.clone().requires_grad_()

    def forward(qkv: Tensor) -> Tensor:
        q, k, v = case.windows(qkv)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
        return layout.to_tokens(out.transpose(1, 2).flatten(2))

    return _passes(forward, (qkv,), case.grad)


def _sdpa_core(case: _Case) -> Passes:
    mask = case.masks()
    parts = [part.detach().contiguous().requires_grad_() for part in case.windows(case.qkv)]

    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)

    return _passes(forward, parts, torch.randn_like(parts[0]))


def _flex_core(case: _Case) -> Passes:
    from torch.nn.attention.flex_attention import flex_attention

    table, m = case.table.clone().requires_grad_(), case.partition.window[0]
    parts = [part.detach().contiguous().requires_grad_() for part in case.windows(case.qkv)]

    def add_bias(score: Tensor, window: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        row, column = i // m - j // m + m - 1, i % m - j % m + m - 1
        return score + table[head, row * (2 * m - 1) + column]

    compiled = torch.compile(flex_attention, dynamic=False)

    def forward(q: Tensor, k: Tensor, v: Tensor, _: Tensor) -> Tensor:
        return compiled(q, k, v, score_mod=add_bias, scale=1.0)

    return _passes(forward, (*parts, table), torch.randn_like(parts[0]))


def _passes(forward: Callable[..., Tensor], leaves: tuple | list, grad: Tensor) -> Passes:
    def without_graph() -> Tensor:
        with torch.no_grad():
            return forward(*leaves)

    return without_graph, lambda: torch.autograd.grad(forward(*leaves), leaves, grad)


CANDIDATES: dict[str, Callable[[_Case], Passes]] = {
    OURS: _ours,
    SDPA: _sdpa,
    SDPA_CORE: _sdpa_core,
    FLEX_CORE: _flex_core,
}
