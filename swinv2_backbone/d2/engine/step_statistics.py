"""The statistics of a step, which all processes exchange before they update the weights.

Every process then has the same list, with the statistics of each process, so that all of them take
the step, skip it, or stop together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple


class StepStatistics(NamedTuple):
    """Statistics of one process."""

    losses: dict[str, float]
    grad_norm: float
    data_time: float  # seconds spent waiting for images
    files: list[str]  # file names of the images
    broken: dict[str, str]  # file name -> error, of images that were skipped
    signal: int  # signal that asks to stop, or 0

    @property
    def finite(self) -> bool:
        """True if all losses are finite."""
        return all(math.isfinite(loss) for loss in self.losses.values())


def mean_losses(statistics: Sequence[StepStatistics]) -> dict[str, float]:
    """Average each loss over the processes."""
    names = statistics[0].losses
    return {name: sum(one.losses[name] for one in statistics) / len(statistics) for name in names}


def broken_images(statistics: Sequence[StepStatistics]) -> dict[str, str]:
    """Return the file names and errors of the images that any process skipped."""
    return {file: error for one in statistics for file, error in one.broken.items()}


def file_names(batch: Any) -> list[str]:
    """Return the file names of a batch of Detectron2's records; none for other batches."""
    records = batch if isinstance(batch, list) else []
    return [str(r["file_name"]) for r in records if isinstance(r, dict) and "file_name" in r]
