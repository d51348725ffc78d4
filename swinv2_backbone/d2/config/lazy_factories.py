"""Builders of the parts that a LazyConfig describes by LazyCalls."""

from __future__ import annotations

import copy
import inspect
import logging
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from swinv2_backbone.d2.config.bands import with_bands_in_mapper
from swinv2_backbone.d2.config.plan import Factories
from swinv2_backbone.d2.data.loading.workers import undisturbed_by_signals
from swinv2_backbone.d2.modeling.build import adapted

DETECTIONS = 100  # per image: Detectron2's default, and what COCO counts
EVERY = 1_000_000


def lazy_factories(
    config: DictConfig, detections_per_image: int, bands: int | None = None
) -> Factories:
    """Return builders of the nodes of the config; the nodes are never changed.

    Args:
        detections_per_image: most detections that the model returns; negative: all of them. An
            evaluator counts as many, unless its node says otherwise.
        bands: the number of bands that images must have; None for RGB and BGR.
    """
    loader = config.dataloader

    def optimizer(model: Any) -> Any:
        node = copy.deepcopy(config.optimizer)
        node.params.model = model
        return instantiate(node)

    def train_loader() -> Any:
        node = with_bands_in_mapper(loader.train, bands)
        if "total_batch_size" in node:  # a custom loader may have none
            node.total_batch_size //= config.train.accumulate
        return instantiate(node)

    def test_loader(name: str, own_size: bool) -> Any:
        node = with_bands_in_mapper(loader.test, bands)
        if "names" in node.get("dataset", {}):
            node.dataset.names = name
        if own_size:
            node.mapper.augmentations = []
        return undisturbed_by_signals(instantiate(node))

    def evaluator(name: str, folder: Path) -> Any:
        node = copy.deepcopy(loader.evaluator)
        for key, value in (("dataset_name", name), ("output_folder", str(folder))):
            if key in node:
                node[key] = value
        standard = 0 <= detections_per_image <= DETECTIONS
        if not standard and _takes(node, "max_dets_per_image"):
            counted = EVERY if detections_per_image < 0 else detections_per_image
            node.setdefault("max_dets_per_image", counted)
        return instantiate(node)

    def model() -> Any:
        built = adapted(instantiate(config.model).to(config.train.device))
        logging.getLogger(__name__).info(f"Model:\n{built}")
        return built

    return Factories(
        model=model,
        optimizer=optimizer,
        schedule=lambda _: instantiate(config.lr_multiplier),
        train_loader=train_loader,
        test_loader=test_loader,
        evaluator=evaluator,
    )


def _takes(node: Any, name: str) -> bool:
    """Return True if a LazyCall's function or class has an argument of this name."""
    if not (OmegaConf.is_dict(node) and "_target_" in node):
        return False
    target = node["_target_"]
    target = get_object(target) if isinstance(target, str) else target
    return name in inspect.signature(target).parameters
