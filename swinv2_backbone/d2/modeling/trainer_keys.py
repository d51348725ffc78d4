"""Config keys that only our trainer reads, logged once if another trainer builds the model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from detectron2.config import CfgNode

# A child of Detectron2's logger, which a program that does not know ours writes to its log.
logger = logging.getLogger("detectron2.swinv2_backbone")
# What Detectron2's trainer does, where that is not our default.
ELSEWHERE = {"SOLVER.OPTIMIZER": "SGD"}

_defaults: dict[str, Any] = {}
_logged: set[str] = set()
_obeyed: ContextVar[bool] = ContextVar("obeyed", default=False)


def declare(key: str, default: Any) -> None:
    """Declare a key that ``add_swinv2_config`` has added for our trainer."""
    _defaults[key] = ELSEWHERE.get(key, default)


@contextmanager
def obeyed() -> Iterator[None]:
    """Build models inside the block for a program that obeys the keys."""
    token = _obeyed.set(True)
    try:
        yield
    finally:
        _obeyed.reset(token)


def log_ignored(cfg: CfgNode) -> None:
    """Log the keys of ``cfg`` that a trainer other than ours may ignore, each once."""
    if _obeyed.get():
        return
    ignored = {key: _get(cfg, key) for key in _defaults if key not in _logged}
    ignored = {key: value for key, value in ignored.items() if value != _defaults[key]}
    if not ignored:
        return
    _logged.update(ignored)
    listed = ", ".join(f"{key} {value!r}" for key, value in ignored.items())
    logger.warning(
        f"swinv2_backbone.d2.Trainer obeys these keys of the config; another trainer ignores them "
        f"unless it reads them itself: {listed}"
    )


def _get(cfg: CfgNode, key: str) -> Any:
    """Return a value with a tuple for a list; the default for a key that ``cfg`` lacks."""
    node: Any = cfg
    for part in key.split("."):
        if part not in node:
            return _defaults[key]
        node = node[part]
    return tuple(node) if isinstance(node, list) else node
