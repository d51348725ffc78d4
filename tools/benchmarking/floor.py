"""The floor: the matrix products that a SwinV2 cannot do without, as fast as the machine does them.

Linear layers (patch embedding, qkv, proj, fc1, fc2, merging) at the true numbers of tokens, and
both products of attention at the true numbers of windows and heads; in training, also those of the
gradients.  No norm, no softmax, no GELU, no copy: nobody reaches it, but the distance tells.

Legend: T tokens of the batch; C channels; nW windows; nH heads; N tokens in a window; d channels of
a head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from benchmarking.settings import Setting
from benchmarking.timing import Clock, device_clock, stopwatch
from benchmarking.ways import ways
from swinv2_backbone.layers import PATCH_SIZE

IN_CHANNELS = 3
TRIALS = 3  # of every way, before the fastest is taken


@dataclass(frozen=True)
class Product:
    """``batch`` products of (rows, inner) by (inner, columns).

    Attributes:
        kind: "linear" (x w^T, the weight w as it is stored), "input_gradient" (dy w),
            "weight_gradient" (dy^T x), or of attention: "qk" (a b^T), "pv" (a b), "transposed"
            (a^T b).
    """

    kind: str
    batch: int
    rows: int
    inner: int
    columns: int

    @property
    def multiply_adds(self) -> int:
        return self.batch * self.rows * self.inner * self.columns


def products(setting: Setting) -> Counter[Product]:
    """How many of each product one run needs."""
    found: Counter[Product] = Counter()
    for tokens, inner, outer, count, learns_input in linear_layers(setting):
        found[Product("linear", 1, tokens, inner, outer)] += count
        if setting.training:
            found[Product("weight_gradient", 1, outer, tokens, inner)] += count
            found[Product("input_gradient", 1, tokens, outer, inner)] += count * learns_input
    for matrices, n, d, count in attentions(setting):
        times = (
            2 if setting.training else 1
        )  # of q and k by the logits', of p and v by the output's
        found[Product("qk", matrices, n, d, n)] += count * times
        found[Product("pv", matrices, n, n, d)] += count * times
        if setting.training:
            found[Product("transposed", matrices, n, n, d)] += 2 * count
    return +found


def linear_layers(setting: Setting) -> Iterator[tuple[int, int, int, int, bool]]:
    """(T, inputs, outputs, how many, whether its input has a gradient) of all linear layers."""
    variant, width = setting.variant, setting.variant.embed_dim
    tokens = [setting.batch * prod(size) for size in setting.maps]
    yield tokens[0], IN_CHANNELS * PATCH_SIZE**2, width, 1, False
    for stage, depth in enumerate(variant.depths):
        c = width * 2**stage
        if stage:
            yield tokens[stage], 2 * c, c, 1, True  # merging: four tokens of c / 2
        for inner, outer in ((c, 3 * c), (c, c), (c, 4 * c), (4 * c, c)):
            yield tokens[stage], inner, outer, depth, True


def attentions(setting: Setting) -> Iterator[tuple[int, int, int, int]]:
    """(nW * nH, N, d, blocks) of every stage.

    There are as many windows as the tokens fill: what partly filled ones need more is no floor.
    """
    variant = setting.variant
    for stage, (size, depth) in enumerate(zip(setting.maps, variant.depths)):
        n = prod(min(length, setting.window) for length in size)
        windows = setting.batch * -(-prod(size) // n)
        heads = variant.num_heads[stage]
        yield windows * heads, n, variant.embed_dim * 2**stage // heads, depth


class Floor:
    """All products of a setting, each in the way that was the fastest, as one stopwatch."""

    def __init__(self, setting: Setting):
        self.setting = setting
        self.clock: Clock = device_clock(setting.device)
        self.counts = products(setting)
        self._pool = _Pool(setting, self.counts)
        self.chosen = {product: self._fastest(product) for product in self.counts}

    def run(self) -> float:
        """Seconds of all products together: each shape is run, and multiplied by its count.

        On a GPU it is run as often as counted, as a launch must not wait for the one before.
        """
        return sum(self._seconds(product) for product in self.counts)

    def _seconds(self, product: Product) -> float:
        count, (_, call) = self.counts[product], self.chosen[product]
        repeats = count if self.setting.device == "cuda" else 1
        return count / repeats * stopwatch(lambda: [call() for _ in range(repeats)], self.clock)()

    def _fastest(self, product: Product) -> tuple[str, Callable[[], object]]:
        found = {}
        for name, call in ways(product, *self._pool.operands(product)).items():
            call()
            watch = stopwatch(call, self.clock)
            found[name] = min(watch() for _ in range(TRIALS)), call
        name = min(found, key=lambda name: found[name][0])
        return name, found[name][1]


class _Pool:
    """One block of random numbers for all operands, and one for all results of any shape.

    The large products of a run would not fit into memory beside each other.
    """

    def __init__(self, setting: Setting, counts: Counter[Product]):
        options = {"dtype": setting.torch_dtype, "device": setting.device}
        left = max(p.batch * p.rows * p.inner for p in counts)
        right = max(p.batch * p.inner * p.columns for p in counts)
        out = max(p.batch * p.rows * p.columns for p in counts)
        self.left, self.right = torch.randn(left, **options), torch.randn(right, **options)
        self.out = torch.zeros(out, **options)

    def operands(self, product: Product) -> tuple[Tensor, Tensor, Tensor]:
        """Views (batch, rows, inner), (batch, inner, columns) and (batch, rows, columns)."""
        b, m, k, n = product.batch, product.rows, product.inner, product.columns
        shapes = ((self.left, (b, m, k)), (self.right, (b, k, n)), (self.out, (b, m, n)))
        return tuple(block[: prod(shape)].view(shape) for block, shape in shapes)
