"""What a tracker does, and the trackers by the names that a config gives them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

# Name in a config (also of its package and of the extra that installs it) -> class.
TRACKERS = {
    "mlflow": "swinv2_backbone.d2.engine.tracking.mlflow_run.MlflowRun",
    "wandb": "swinv2_backbone.d2.engine.tracking.wandb_run.WandbRun",
}
FINISHED, FAILED, PREEMPTED = "finished", "failed", "preempted"  # how a training ends


class Description(NamedTuple):
    """A run for a tracker.

    Attributes:
        project: name of the project (Weights & Biases) or experiment (MLflow).
        name: name of the run; empty: the tracker's own choice.
        id: identifier of the run to continue; None: a new run.
        options: the options of the training, by their keys.
        folder: output folder, which also has the files of an offline run.
    """

    project: str
    name: str
    id: str | None
    options: dict[str, Any]
    folder: Path


class Tracker(Protocol):
    """One run of a tracker. Every method may raise any exception of the tracker's library."""

    def start(self, run: Description, offline: bool) -> str:
        """Start or continue a run; return its identifier.

        Args:
            offline: write into the output folder, without a server.
        """

    def log(self, iteration: int, values: dict[str, float]) -> None:
        """Log the values of an iteration."""

    def image(self, iteration: int, name: str, image: Any) -> None:
        """Log an image of Detectron2's storage; see :func:`pixels_of`."""

    def end(self, state: str) -> None:
        """End the run as ``FINISHED``, ``FAILED`` or ``PREEMPTED``."""


def pixels_of(image: Any) -> np.ndarray:
    """Return an image, (3, H, W) RGB, uint8 or in [0, 1], as (H, W, 3) uint8."""
    found = torch.as_tensor(image).detach().cpu()
    if found.dtype != torch.uint8:
        found = (found.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return found.permute(1, 2, 0).numpy()


def new_tracker(name: str) -> Tracker:
    """Return a tracker, whose package must be installed."""
    module, _, cls = TRACKERS[name].rpartition(".")
    return getattr(importlib.import_module(module), cls)()
