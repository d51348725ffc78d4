"""Packed tokens: the maps of a batch as one matrix (T, C).  Pure functions, no parameters.

The maps of all images of a batch follow one another, row by row, without padding in between.

Legend: B images; T tokens of the whole batch; C channels.  A size is (height, width) in tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


def count_tokens(sizes: tuple[Size, ...], device: torch.device) -> Tensor:
    """Return the number of tokens of each image, (B,)."""
    with torch.inference_mode(False):
        return torch.tensor([prod(size) for size in sizes], device=device)


# The 64 most recent results are cached.  Compiled graphs, which cannot cache, call count_tokens.
tokens_per_image = lru_cache(maxsize=64)(count_tokens)


def shrink(sizes: Sequence[Size], stride: int) -> tuple[Size, ...]:
    """Divide the sizes by ``stride``, rounding up."""
    more = stride - 1
    return tuple(((height + more) // stride, (width + more) // stride) for height, width in sizes)


def size_of(maps: Tensor) -> Size:
    """Return (height, width) of maps (..., H, W)."""
    height, width = maps.shape[-2:]
    return height, width


def flat_sizes(sizes: Sequence[Size]) -> list[int]:
    """Flatten sizes to the integers that an operator takes: height and width of each in turn."""
    return [length for size in sizes for length in size]


def sizes_of(flat: Sequence[int]) -> tuple[Size, ...]:
    """Return the sizes from their flat form, see :func:`flat_sizes`."""
    return tuple(zip(flat[::2], flat[1::2]))


def same(size: Size, other: Size) -> bool:
    """Return True if two sizes are known to be equal.

    In a compiled graph, sizes that depend on data, such as those read from the images themselves,
    are not known to be equal: one graph serves all of them.
    """
    if not torch.compiler.is_compiling():
        return size == other
    from torch.fx.experimental.symbolic_shapes import guard_or_false

    return all(guard_or_false(length == others) for length, others in zip(size, other))


def pack(maps: Tensor, sizes: Sequence[Size]) -> Tensor:
    """(B, H, W, C) -> (T, C): the top-left ``sizes[b]`` of every map, row by row."""
    height, width = maps.shape[1:3]
    if all(same(size, (height, width)) for size in sizes):
        return maps.flatten(0, 2)
    parts = [one.narrow(0, 0, h).narrow(1, 0, w) for one, (h, w) in zip(maps, sizes)]
    return torch.cat(
        [one.contiguous().view(h * w, one.shape[2]) for one, (h, w) in zip(parts, sizes)]
    )


def unpack(tokens: Tensor, sizes: Sequence[Size], size: Size) -> Tensor:
    """(T, C) -> (B, C, H, W) in channels-last memory, zero outside each image's own map.

    The inverse of :func:`pack`, up to the order of axes; a view if all images have ``size``.
    """
    maps = _maps(tokens, sizes)
    if not all(same(own, size) for own in sizes):
        maps = [
            pad_end(own, (0, 0, 0, size[1] - own.shape[2], 0, size[0] - own.shape[1]))
            for own in maps
        ]
    return (torch.cat(maps) if len(maps) > 1 else maps[0]).permute(0, 3, 1, 2)


def neighbors(tokens: Tensor, sizes: Sequence[Size]) -> Tensor:
    """(T, C) -> (T', 4C): concatenate every 2x2 neighborhood in the order h0w0, h1w0, h0w1, h1w1.

    At the odd end of an axis, neighbors outside the map are zero.
    """
    merged = []
    for maps in _maps(tokens, sizes):
        # Written so that torch.compile needs no guards on the symbolic height and width.
        count, height, width, channels = maps.shape
        rows, columns = (height + 1) // 2, (width + 1) // 2
        even = pad_end(maps, (0, 0, 0, 2 * columns - width, 0, 2 * rows - height))
        pairs = even.view(count, rows, 2, columns, 2, channels).permute(0, 1, 3, 4, 2, 5)
        merged.append(pairs.reshape(count * rows * columns, 4 * channels))
    return torch.cat(merged) if len(merged) > 1 else merged[0]


def pad_end(x: Tensor, padding: tuple[int, ...]) -> Tensor:
    """Pad like ``F.pad``, without a copy if there is nothing to pad."""
    # A compiled graph serves all sizes, so it must not branch on them.
    return F.pad(x, padding) if torch.compiler.is_compiling() or any(padding) else x


def _maps(tokens: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
    """(T, C) -> views (b, h, w, C): a single one if all maps have one size, else one per map."""
    if all(same(size, sizes[0]) for size in sizes):
        return [tokens.view(len(sizes), *sizes[0], tokens.shape[1])]
    parts = tokens.split([h * w for h, w in sizes])
    return [own.view(1, *size, tokens.shape[1]) for own, size in zip(parts, sizes)]
