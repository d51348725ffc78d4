"""Values out of all proportion in the weights of a file: signs of damage, never an error.

A file that states no digest can be damaged and still be readable.  Some damage shows: a flipped bit
of an exponent makes one value thousands of times larger than its neighbors, and a lost block of the
disk leaves a run of zeros.  The limits are far from the values that training gives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

GROUP = 64  # neighboring values, of which the largest magnitude counts; also the shortest hole
BLOCK = 4096  # groups that fit into the cache of a core
FEW = 8  # groups with outliers that leave the spread as it is, and holes in a tensor
TIMES = 1000  # times the spread
LARGE, HUGE = 10.0, 1e4  # magnitudes: no smaller one is unusual, and any larger one is
NORM_WEIGHT = 100.0
LOGIT_SCALE = 10.0  # starts at ln 10 = 2.3; the forward pass uses at most ln 100 = 4.6
MOSTLY = 0.9  # share of zeros above which a tensor is one of zeros, with a few values
STRAY_ZEROS = 1e-3  # share of zeros outside of holes, above which a tensor is sparse
NORMS = re.compile(r"norm\w*(\.res\d)?\.weight$")


@torch.no_grad()
def unusual_values(tensors: Mapping[str, Tensor]) -> list[str]:
    """Describe the tensors with values out of all proportion.

    Args:
        tensors: parameters by name, finite, on the CPU.

    Returns:
        One text for each such tensor, with its name and a value: a magnitude of over 1,000 times
        the usual one, a logit scale or a norm's weight beyond the limits, or a hole.
    """
    found = []
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        flat = tensor.reshape(-1)
        flat = flat.float() if flat.element_size() == 1 else flat  # float8 has no maximum
        maxima = _magnitudes(flat)
        usual = _spread(maxima)
        limit = _limit(name, tensor.ndim, usual)
        if maxima.max() > limit:
            found.append(f"{name} {_outliers(flat, limit, usual)}")
        if tensor.ndim > 1 and not maxima.all() and (hole := _hole(flat == 0, tensor.shape)):
            found.append(f"{name} {hole}")
    return found


def _magnitudes(flat: Tensor) -> Tensor:
    """Return the largest magnitude of each group; of a short tensor every magnitude."""
    if len(flat) < 16 * GROUP:
        return flat.abs().float()
    groups = flat[: len(flat) // GROUP * GROUP].view(-1, GROUP)
    return torch.cat([_maxima(groups), flat[groups.numel() :].abs()]).float()


def _maxima(groups: Tensor) -> Tensor:
    """Return the largest magnitude of each row, several times faster than ``abs().amax(1)``."""
    if groups.element_size() != 2:
        return torch.maximum(groups.amax(1), -groups.amin(1))
    # PyTorch is slow in half precision.  Without their sign, bits are ordered as magnitudes are.
    parts = [(part & 0x7FFF).amax(1) for part in groups.view(torch.int16).split(BLOCK)]
    return torch.cat(parts).view(groups.dtype)


def _spread(maxima: Tensor) -> float | None:
    """Return the mean magnitude without the largest few; None if only these are not zero."""
    if len(maxima) <= FEW:
        return None
    last = maxima.topk(FEW).values[-1]
    usual = maxima[maxima < last]
    return float(usual.mean() if len(usual) else last) or None


def _limit(name: str, ndim: int, usual: float | None) -> float:
    if name.endswith("logit_scale"):
        return LOGIT_SCALE
    if ndim == 1 and NORMS.search(name):
        return NORM_WEIGHT
    return HUGE if usual is None else min(HUGE, max(LARGE, TIMES * usual))


def _outliers(flat: Tensor, limit: float, usual: float | None) -> str:
    values = flat[flat.abs() > limit]
    more = f" and {len(values) - 1:,} more" if len(values) > 1 else ""
    others = f", where {usual:.2g} is usual" if usual and usual < limit else ""
    return f"has the value {float(values[0]):.3g}{more}{others}"


def _hole(zero: Tensor, shape: torch.Size) -> str | None:
    """Describe runs of zeros that are no rows, in a tensor that otherwise has hardly any zeros.

    Whole rows, or whole kernels of a convolution, are zero where they are pruned or new.
    """
    places = zero.nonzero().flatten()
    if len(places) > MOSTLY * len(zero):
        return None
    last = torch.cat([places.diff() > 1, places.new_ones(1, dtype=torch.bool)]).nonzero().flatten()
    lengths = last.diff(prepend=last.new_tensor([-1]))
    starts = places[last] - lengths + 1
    long = lengths >= GROUP
    if len(places) - int(lengths[long].sum()) > STRAY_ZEROS * len(zero):
        return None
    unit = shape[2:].numel() if len(shape) > 2 else shape[1]
    holes = long & ((starts % unit != 0) | (lengths % unit != 0))
    if not 0 < int(holes.sum()) <= FEW:
        return None
    length = int(lengths[holes].max())
    return f"has {length:,} zeros in a row, and hardly any elsewhere"
