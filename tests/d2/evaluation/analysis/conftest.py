"""Datasets and detections of the analysis tests."""

from __future__ import annotations

import pytest
from analysis_cases import TRUTH, registered_datasets

from swinv2_backbone.d2.evaluation.analysis.detections import Detections, load_detections


@pytest.fixture
def registered():
    """Registers datasets; they are removed after the test."""
    with registered_datasets() as register:
        yield register


@pytest.fixture
def compared(registered, tmp_path):
    """Detections beside a truth, which is ``TRUTH`` unless another is given."""

    def build(detections: list[dict], truth: list[dict] = TRUTH) -> Detections:
        return load_detections(registered(tmp_path, truth), detections)

    return build
