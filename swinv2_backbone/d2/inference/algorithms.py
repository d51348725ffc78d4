"""Deterministic algorithms of PyTorch for the duration of a block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def algorithms(deterministic: bool) -> Iterator[None]:
    """Choose deterministic algorithms inside the block, and warn of operators without one."""
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    if not deterministic or before:
        yield
        return
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
