"""The floor: the matrix products that every SwinV2 needs, as fast as the machine computes them.

It has no norm, softmax, GELU or copy.  No implementation reaches it; the gap shows the cost of
the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from benchmarking.products import Product, products
from benchmarking.settings import Setting
from benchmarking.timing import Clock, device_clock, stopwatch
from benchmarking.ways import ways

TRIALS = 3  # runs of every way, of which the fastest counts


class Floor:
    """All products of a setting, each in its fastest way, as one stopwatch."""

    def __init__(self, setting: Setting):
        self.setting = setting
        self.clock: Clock = device_clock(setting.device)
        self.counts = products(setting)
        self._pool = _Pool(setting, self.counts)
        self.chosen = {product: self._fastest(product) for product in self.counts}

    def run(self) -> float:
        """Return the seconds of all products: the time of each shape, multiplied by its count.

        On a GPU each shape runs as often as it is counted, so that launches need not wait.
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
    """Memory for the operands and results of all products, which share it.

    The large products of a run would not fit into memory together.
    """

    def __init__(self, setting: Setting, counts: Counter[Product]):
        dtype, device = setting.torch_dtype, setting.device
        left = max(p.batch * p.rows * p.inner for p in counts)
        right = max(p.batch * p.inner * p.columns for p in counts)
        out = max(p.batch * p.rows * p.columns for p in counts)
        self.left = torch.randn(left, dtype=dtype, device=device)
        self.right = torch.randn(right, dtype=dtype, device=device)
        self.out = torch.zeros(out, dtype=dtype, device=device)

    def operands(self, product: Product) -> tuple[Tensor, Tensor, Tensor]:
        """Return views (batch, rows, inner), (batch, inner, columns) and (batch, rows, columns)."""
        b, m, k, n = product.batch, product.rows, product.inner, product.columns
        return _view(self.left, b, m, k), _view(self.right, b, k, n), _view(self.out, b, m, n)


def _view(block: Tensor, *shape: int) -> Tensor:
    return block[: prod(shape)].view(shape)
