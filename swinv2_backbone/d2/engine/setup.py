"""Detectron2's ``default_setup``, whose ``config.yaml`` exists whole or not at all."""

from __future__ import annotations

import argparse

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from omegaconf import DictConfig

from swinv2_backbone.d2.evaluation.whole_files import whole_files


def set_up(config: CfgNode | DictConfig, args: argparse.Namespace) -> None:
    """Call ``default_setup``: logs, seeds, and the config in the output folder.

    A process that is killed meanwhile leaves the earlier ``config.yaml``.
    """
    with whole_files():
        default_setup(config, args)
