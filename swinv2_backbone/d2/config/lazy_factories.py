"""Builders of the parts that a LazyConfig describes by LazyCalls."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from omegaconf import DictConfig

from swinv2_backbone.d2.config.plan import Factories
from swinv2_backbone.d2.data.loading.workers import undisturbed_by_signals
from swinv2_backbone.d2.modeling.build import with_true_sizes


def lazy_factories(config: DictConfig) -> Factories:
    """Return builders of the nodes of the config; the nodes are never changed."""
    loader = config.dataloader

    def optimizer(model: Any) -> Any:
        node = copy.deepcopy(config.optimizer)
        node.params.model = model
        return instantiate(node)

    def train_loader() -> Any:
        node = copy.deepcopy(loader.train)
        if "total_batch_size" in node:  # a custom loader may have none
            node.total_batch_size //= config.train.accumulate
        return instantiate(node)

    def test_loader(name: str, own_size: bool) -> Any:
        node = copy.deepcopy(loader.test)
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
        return instantiate(node)

    def model() -> Any:
        built = with_true_sizes(instantiate(config.model).to(config.train.device))
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
