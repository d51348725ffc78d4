"""A recipe by its name, for scripts and configs outside of this repository."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode, LazyConfig
from omegaconf import DictConfig

from swinv2_backbone.d2.config.overrides import apply_overrides
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.recipes import config_path


def get_config(name: str, opts: Sequence[str] = ()) -> CfgNode | DictConfig:
    """Return a recipe or another config, as ``detectron2.model_zoo.get_config`` does.

    Args:
        name: name of a recipe or path of a config. ``mask_rcnn_swinv2`` is YAML;
            ``mask_rcnn_swinv2.py`` is the same recipe as a LazyConfig.
        opts: changes to the config: ``KEY VALUE ...``, or ``key=value ...`` for a LazyConfig.

    Returns:
        A validated ``CfgNode``, or a LazyConfig whose parts can be changed and used in another
        one. The latter is validated when a training loads it.

    Raises:
        FileNotFoundError: there is no such recipe or file.
        ConfigError: the YAML config is invalid; a ValueError that lists all errors.
    """
    path = str(config_path(name))
    if path.endswith(".py"):
        return apply_overrides(LazyConfig.load(path), opts)
    return load_config(path, opts)
