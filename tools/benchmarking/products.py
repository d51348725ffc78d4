"""The matrix products of a SwinV2 at a setting.

Linear layers (patch embedding, qkv, proj, fc1, fc2, merging) at the true numbers of tokens, and
both products of attention at the true numbers of windows and heads; in training, also those of the
gradients.

Legend: T tokens of the batch; C channels; nW windows; nH heads; N tokens in a window; d channels of
a head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from benchmarking.settings import Setting
from swinv2_backbone.layers import PATCH_SIZE

IN_CHANNELS = 3


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
    """Count each product of one run."""
    found: Counter[Product] = Counter()
    for tokens, inner, outer, count, learns_input in linear_layers(setting):
        found[Product("linear", 1, tokens, inner, outer)] += count
        if setting.training:
            found[Product("weight_gradient", 1, outer, tokens, inner)] += count
            found[Product("input_gradient", 1, tokens, outer, inner)] += count * learns_input
    for matrices, n, d, count in attentions(setting):
        # Training adds: q and k by the gradient of the logits, p and v by that of the output.
        times = 2 if setting.training else 1
        found[Product("qk", matrices, n, d, n)] += count * times
        found[Product("pv", matrices, n, n, d)] += count * times
        if setting.training:
            found[Product("transposed", matrices, n, n, d)] += 2 * count
    return +found


def linear_layers(setting: Setting) -> Iterator[tuple[int, int, int, int, bool]]:
    """Yield (T, inputs, outputs, count, whether its input has a gradient) for linear layers."""
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
    """Yield (nW * nH, N, d, blocks) for every stage.

    The number of windows is the number of tokens divided by N, rounded up: padding does not count.
    """
    variant = setting.variant
    for stage, (size, depth) in enumerate(zip(setting.maps, variant.depths)):
        n = prod(min(length, setting.window) for length in size)
        windows = setting.batch * -(-prod(size) // n)
        heads = variant.num_heads[stage]
        yield windows * heads, n, variant.embed_dim * 2**stage // heads, depth
