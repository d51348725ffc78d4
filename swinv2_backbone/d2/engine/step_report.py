"""The reports of training steps: metrics, non-finite steps, and broken images."""

from __future__ import annotations

import json
import logging
import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.d2.engine.shared_errors import raised_in_all_processes
from swinv2_backbone.d2.engine.step_statistics import StepStatistics, mean_losses

logger = logging.getLogger(__name__)
NO_LOSS = "no_loss"  # name of the NaN that stands for the losses of a model that found NaN itself
NORMS_KEPT = 20  # gradient norms of the latest steps, for the record of a non-finite step


class NonFiniteError(FloatingPointError):
    """More steps than allowed had a loss or gradient that was not finite.

    Attributes:
        option: option of the training plan that allows more such steps.
    """

    option = "step.max_nonfinite"


def write_metrics(statistics: Sequence[StepStatistics], nonfinite: int) -> None:
    """Write the metrics of a step to Detectron2's event storage, as means over the processes."""
    storage = get_event_storage()
    # All processes wait for the slowest loader.
    storage.put_scalar("data_time", max(one.data_time for one in statistics))
    storage.put_scalar("grad_norm", statistics[0].grad_norm)
    if nonfinite:
        storage.put_scalar("nonfinite_steps", nonfinite, smoothing_hint=False)
    losses = {name: loss for name, loss in mean_losses(statistics).items() if name != NO_LOSS}
    storage.put_scalar("total_loss", sum(losses.values()) if losses else math.nan)
    if len(losses) > 1:
        storage.put_scalars(**losses)


class NonFiniteSteps:
    """The steps that were skipped because a loss or gradient was not finite.

    Args:
        allowed: number of steps that may be skipped.
        output_dir: folder for the record of each skipped step, ``nonfinite_ITERATION.json``.

    Attributes:
        count: number of steps skipped so far.
    """

    def __init__(self, allowed: int, output_dir: str):
        self.allowed, self.output_dir, self.count = allowed, output_dir, 0
        self._norms: deque[tuple[int, float]] = deque(maxlen=NORMS_KEPT)

    def add_norm(self, iteration: int, norm: float) -> None:
        """Keep the gradient norm of a step for the records of the next steps."""
        self._norms.append((iteration, norm))

    def diverge(
        self, iteration: int, files: Sequence[str], error: FloatingPointError
    ) -> dict[str, Tensor]:
        """Return the losses of a batch on which the model itself found values that are not finite.

        Raises:
            NonFiniteError: there are several processes, which wait for this one's gradient, so that
                the step cannot be skipped.
        """
        logger.warning(f"The model failed at iteration {iteration}, on {', '.join(files)}: {error}")
        if comm.get_world_size() > 1:
            path = Path(self.output_dir, f"nonfinite_{iteration:07d}_{comm.get_rank()}.json")
            _write_record(path, {"iteration": iteration, "files": list(files), "error": str(error)})
            raise NonFiniteError(
                f"{error} At iteration {iteration}, on {', '.join(files)}; the weights are "
                f"unchanged, {path} has the details. With several processes such a step cannot be "
                "skipped"
            )
        return {NO_LOSS: torch.tensor(math.nan)}

    def skip(
        self, iteration: int, statistics: Sequence[StepStatistics], learning_rates: Sequence[float]
    ) -> None:
        """Count a skipped step and write its record.

        Raises:
            NonFiniteError: more steps were skipped than allowed.
        """
        self.count += 1
        path = Path(self.output_dir, f"nonfinite_{iteration:07d}.json")
        if comm.is_main_process():
            _write_record(path, self._record(iteration, statistics, learning_rates))
        # If all losses are finite, the gradient is not; it is the same in all processes.
        culprits = [one for one in statistics if not one.finite] or statistics
        files = ", ".join(file for one in culprits for file in one.files)
        text = (
            f"a loss or gradient is not finite at iteration {iteration}, on {files}: "
            f"{_losses(culprits[0])}; the weights are unchanged, {path} has the details"
        )
        if self.count > self.allowed:
            raise raised_in_all_processes(
                NonFiniteError(
                    f"{text}. {self.count} non-finite steps; {self.allowed} may be skipped"
                )
            )
        logger.warning(f"Step skipped: {text}")

    def _record(
        self, iteration: int, statistics: Sequence[StepStatistics], learning_rates: Sequence[float]
    ) -> dict[str, Any]:
        return {
            "iteration": iteration,
            "processes": [
                {"losses": _losses(one), "files": one.files, "finite": one.finite}
                for one in statistics
            ],
            "grad_norms": [[step, _json_number(norm)] for step, norm in self._norms],
            "learning_rates": sorted(set(learning_rates)),
        }


def report_broken_images(new: dict[str, str]) -> None:
    """Log each image that was skipped because it cannot be read."""
    for file, error in new.items():
        logger.warning(f"Image skipped: {file}: {error}")


def _write_record(path: Path, record: dict[str, Any]) -> None:
    try:
        write_text(path, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        logger.error(f"{error}: {record}")


def _losses(statistics: StepStatistics) -> dict[str, float | str]:
    return {name: _json_number(loss) for name, loss in statistics.losses.items()}


def _json_number(value: float) -> float | str:
    """Return the value, or its name if it is not finite, because JSON has no NaN."""
    return value if math.isfinite(value) else str(value)
