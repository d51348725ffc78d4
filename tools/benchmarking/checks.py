"""Comparison of features with our readable reference; a candidate that differs is not timed.

The reference is in float64, and tests compare it with a brute-force oracle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarking.candidates import OURS, Candidate, build
from benchmarking.runs import features_of
from benchmarking.settings import Setting, nearest_whole, size_name
from benchmarking.weights import random_images
from swinv2_backbone import SwinV2

# Largest max |feature - reference| / max |reference| of all features.  In half precision, which
# rounds every product and sum to 8 or 11 bits, errors grow from block to block.
TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
LARGEST_LOGITS = 4 * 2**30  # bytes in float64 of a stage; above this, the reference is in float32


def reference_features(setting: Setting, weights: SwinV2, images: Tensor) -> dict[str, Tensor]:
    """Return the features of the reference, computed image by image to save memory."""
    dtype = _reference_dtype(setting)
    plain = replace(setting, mode="forward", dtype="float32")
    model = build(Candidate(OURS, "reference"), plain, weights).to(dtype)
    with torch.no_grad():
        parts = [model(image[None].to(dtype)) for image in images]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _reference_dtype(setting: Setting) -> torch.dtype:
    stages = zip(setting.maps, setting.variant.num_heads)
    tokens_in_window = [prod(min(length, setting.window) for length in m) for m in setting.maps]
    logits = [heads * prod(m) * n for (m, heads), n in zip(stages, tokens_in_window)]
    return torch.float64 if 8 * max(logits) <= LARGEST_LOGITS else torch.float32


def difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Return the largest difference of a feature, relative to its largest number.

    It is infinite if names or shapes differ, or a number is NaN.
    """
    worst = 0.0
    for name, value in expected.items():
        if name not in found or found[name].shape != value.shape:
            return float("inf")
        error = (found[name].to(value.dtype) - value).abs().max() / value.abs().max()
        worst = max(worst, error.nan_to_num(nan=torch.inf).item())
    return worst


class Check(NamedTuple):
    """The largest difference of a feature, the image size, and the basis of comparison."""

    difference: float
    at: str
    to: str


class Checker:
    """The comparison with the reference at one setting, or at the nearest one without padding."""

    def __init__(self, setting: Setting, weights: SwinV2):
        self.setting, self.weights = setting, weights
        self._references: dict[Setting, dict[str, Tensor]] = {}

    def check(self, candidate: Candidate, model: nn.Module) -> Check:
        """Compare a candidate.

        A peer attends to padding, so it is built and compared at the nearest size without
        padding.  A compiled peer is then compared with the eager one at the setting's own size.

        Args:
            candidate: The candidate, which determines the setting of the comparison.
            model: The candidate, built for the setting.
        """
        where = nearest_whole(self.setting) if candidate.is_peer else self.setting
        if candidate.compiled and where != self.setting:
            eager = build(replace(candidate, compiled=False), self.setting, self.weights)
            images = random_images(self.setting)
            expected = features_of(eager, images, self.setting)
            error = difference(features_of(model, images, self.setting), expected)
            return Check(error, size_name(self.setting.size), "not compiled")
        if where != self.setting:
            model = build(candidate, where, self.weights)
        expected = self._reference(where)
        error = difference(features_of(model, random_images(where), where), expected)
        return Check(error, size_name(where.size), "the reference")

    def _reference(self, setting: Setting) -> dict[str, Tensor]:
        if setting not in self._references:
            images = random_images(setting)
            self._references[setting] = reference_features(setting, self.weights, images)
        return self._references[setting]
