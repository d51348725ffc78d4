"""What the predictions of a model depend on, so that a run is continued only with the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from swinv2_backbone.checkpoints.records import parse_record
from swinv2_backbone.d2.config.options import Dialect
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.inference.predictor import Predictor
from swinv2_backbone.d2.inference.scale.first import first_text

MODEL = "model.json"
LOST = "delete it and one of the files of results, and repeat the command of the prediction"
PARTS = {
    Dialect.YACS: ("MODEL", "INPUT.FORMAT", "INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST"),
    Dialect.LAZY: ("model", "dataloader.test.mapper"),
}
# Weights are compared by content, and may be read from elsewhere.
IGNORED = ("MODEL.WEIGHTS", "MODEL.DEVICE")


def model_settings(plan: TrainingPlan) -> dict[str, str]:
    """Return the values of a config's keys that describe the model, by the keys."""
    config = plan.config
    if isinstance(config, DictConfig):
        config = OmegaConf.to_container(config, resolve=False)
    parts = ((part, _value(config, part)) for part in PARTS[plan.dialect])
    found = {key: value for part, node in parts for key, value in _flat(part, node)}
    return {key: value for key, value in found.items() if key not in IGNORED}


def require_same_model(folder: Path, predictor: Predictor) -> None:
    """Record the weights and classes of a run's model, or raise ValueError if it has others."""
    digest = hashlib.sha256()
    for name, tensor in predictor.model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    classes = [*predictor.classes.things, *predictor.classes.stuff]
    now = {"weights": digest.hexdigest(), "classes": classes}
    then = parse_record(first_text(folder / MODEL, json.dumps(now)).encode(), folder / MODEL, LOST)
    for name in now:
        if now[name] != then[name]:
            raise ValueError(
                f"{folder} has results of a model with other {name}; give the same to continue "
                "the run, or another folder to start anew"
            )


def _value(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = config[name]
    return config


def _flat(key: str, node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _flat(f"{key}.{name}", value)
    elif callable(node):  # a class or function that a LazyConfig names
        yield key, f"{node.__module__}.{node.__qualname__}"
    else:
        yield key, repr(node)
