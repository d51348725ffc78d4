"""Overrides ``key=value`` of a LazyConfig, which Hydra reads."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import LazyConfig
from omegaconf import DictConfig


def apply_overrides(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Apply overrides in place, and return the config; see ``LazyConfig.apply_overrides``.

    A source of weights may have a digest, ``train.init_checkpoint=FILE#sha256=HEX``.
    """
    return LazyConfig.apply_overrides(config, [_quoted(override) for override in overrides])


def _quoted(override: str) -> str:
    """Put a value with ``#`` into quotes, because Hydra's grammar has no ``#`` outside of them."""
    key, _, value = override.partition("=")
    if "#" not in value or value[0] in "'\"[{":
        return override
    escaped = value.replace("'", r"\'")
    return f"{key}='{escaped}'"
