"""Detectron2's ``default_setup``, whose ``config.yaml`` exists whole or not at all."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig

from swinv2_backbone.checkpoints.durable import write_text


def set_up(config: CfgNode | DictConfig, args: argparse.Namespace) -> None:
    """Call ``default_setup``: logs, seeds, and the config in the output folder.

    A process that is killed meanwhile leaves the earlier ``config.yaml``.
    """
    with _whole_files():
        default_setup(config, args)


@contextlib.contextmanager
def _whole_files() -> Iterator[None]:
    """Write the local text files that are opened by Detectron2's PathManager durably."""
    plain = PathManager.open

    def opened(path: str, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        local = mode == "w" and "://" not in path
        return _whole_text(Path(path)) if local else plain(path, mode, *args, **kwargs)

    PathManager.open = opened
    try:
        yield
    finally:
        del PathManager.open  # the attribute of the instance, which hid the method


@contextlib.contextmanager
def _whole_text(path: Path) -> Iterator[io.StringIO]:
    """Yield a file in memory that is written at the end of the block."""
    text = io.StringIO()
    yield text
    write_text(path, text.getvalue())
