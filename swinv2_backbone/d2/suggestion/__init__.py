"""Suggested settings for a dataset: image size, anchors, variant, batch and learning rate."""

from swinv2_backbone.d2.suggestion.objects import ObjectSizes, read_objects
from swinv2_backbone.d2.suggestion.suggest import Suggestion, suggest, suggest_for_cpu

__all__ = ["ObjectSizes", "Suggestion", "read_objects", "suggest", "suggest_for_cpu"]
