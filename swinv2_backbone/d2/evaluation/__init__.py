"""Evaluation as the benchmarks define it, test-time augmentation, and analysis of results."""

from swinv2_backbone.d2.evaluation.evaluators import build_evaluator
from swinv2_backbone.d2.evaluation.metrics import evaluation_faults
from swinv2_backbone.d2.evaluation.results import write_results
from swinv2_backbone.d2.evaluation.tta import with_augmentation

__all__ = ["build_evaluator", "evaluation_faults", "with_augmentation", "write_results"]
