"""Experiment trackers, Weights & Biases and MLflow, which log a training as it runs."""

from swinv2_backbone.d2.engine.tracking.tracker import TRACKERS
from swinv2_backbone.d2.engine.tracking.writer import Tracking

__all__ = ["TRACKERS", "Tracking"]
