"""The training step: mixed precision on any device, gradient accumulation, and clipping.

All processes exchange the statistics of a step before they update the weights. A step whose loss or
gradient is not finite never changes the weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor, nn

from swinv2_backbone.d2.data.loading.draws import BrokenImagesError
from swinv2_backbone.d2.engine.parallel import synchronize_gradients
from swinv2_backbone.d2.engine.resumable import ResumableTrainer
from swinv2_backbone.d2.engine.shared_errors import raised_in_all_processes
from swinv2_backbone.d2.engine.signals import StopRequest
from swinv2_backbone.d2.engine.step_report import (
    NonFiniteSteps,
    report_broken_images,
    write_metrics,
)
from swinv2_backbone.d2.engine.step_statistics import StepStatistics, broken_images, file_names
from swinv2_backbone.d2.solver.clipping import clip_gradients, gradient_norm


class TrainingStep(ResumableTrainer):
    """Detectron2's ``SimpleTrainer`` with a step for transformers and long training runs.

    Args:
        model, data_loader, optimizer: as for ``SimpleTrainer``.
        amp_dtype: lower-precision dtype of mixed precision; None: float32 only.
        clip: keyword arguments of :func:`swinv2_backbone.d2.solver.clipping.clip_gradients`; None
            for no clipping.
        accumulate: number of batches from the loader in one step; their losses are averaged.
        max_nonfinite: number of steps that may be skipped because a loss or gradient is not finite;
            one more ends training with the weights unchanged.
        output_dir: folder for the records of such steps.

    Attributes:
        stop_request: request to stop, set by a signal or a time limit.
        stopping: signal for which all processes stop after this step, or 0.
        ending: reason why training ends after this step, set by hooks; "" if it continues.
        broken: file name -> error, of the images that any process has skipped.
        nonfinite: number of steps skipped because a loss or gradient was not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        *,
        amp_dtype: torch.dtype | None = None,
        clip: dict[str, Any] | None = None,
        accumulate: int = 1,
        max_nonfinite: int = 0,
        output_dir: str = "",
    ):
        super().__init__(model, data_loader, optimizer)
        self.amp_dtype, self.clip, self.accumulate = amp_dtype, clip, accumulate
        self.device_type = next(model.parameters()).device.type
        # bfloat16 has the range of float32; only float16 gradients need scaling.
        scaled = amp_dtype == torch.float16
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=scaled)
        self.stop_request = StopRequest(launched=dist.is_initialized())
        self.stopping, self.ending = 0, ""
        self.broken: dict[str, str] = {}
        self._skipped = NonFiniteSteps(max_nonfinite, output_dir)
        self._has_gradients = False  # of this step; a model may end before its losses

    @property
    def nonfinite(self) -> int:
        return self._skipped.count

    def run_step(self) -> None:
        assert self.model.training, "the model was changed to eval mode during training"
        self.restore_rng()
        statistics = comm.all_gather(self._compute_gradients())
        self._skipped.add_norm(self.iter, statistics[0].grad_norm)
        self.stopping = max(one.signal for one in statistics)
        self._add_broken(broken_images(statistics))
        if self._can_step(statistics):
            if self.clip:
                clip_gradients(self._parameters(), **self.clip)
            self.grad_scaler.step(self.optimizer)
        else:
            rates = [group["lr"] for group in self.optimizer.param_groups]
            self._skipped.skip(self.iter, statistics, rates)
        if self._has_gradients:
            self.grad_scaler.update()
        if comm.is_main_process():
            write_metrics(statistics, self.nonfinite)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "grad_scaler": self.grad_scaler.state_dict(),
            "nonfinite": self.nonfinite,
            "broken": self.broken,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if state.get("grad_scaler"):  # empty if the saved run did not scale gradients
            self.grad_scaler.load_state_dict(state["grad_scaler"])
        self._skipped.count = state.get("nonfinite", 0)
        self.broken = dict(state.get("broken", {}))

    def _compute_gradients(self) -> StepStatistics:
        """Accumulate the gradients of all batches of a step; return this process's statistics."""
        self.optimizer.zero_grad()
        self._has_gradients = False
        losses: dict[str, Tensor] = {}
        files, waited = [], 0.0
        for part in range(self.accumulate):
            start = time.perf_counter()
            batch = next(self._data_loader_iter)
            waited += time.perf_counter() - start
            files += file_names(batch)
            for name, loss in self._backward(batch, last=part == self.accumulate - 1).items():
                losses[name] = losses.get(name, 0.0) + loss.detach()
        if self._has_gradients:
            self.grad_scaler.unscale_(self.optimizer)
        take_broken = getattr(self.data_loader, "take_broken", dict)
        return StepStatistics(
            losses={name: float(loss) for name, loss in losses.items()},
            grad_norm=gradient_norm(self._parameters()),
            data_time=waited,
            files=files,
            broken=take_broken(),
            signal=self.stop_request.signal,
        )

    def _backward(self, batch: Any, last: bool) -> dict[str, Tensor]:
        """Add the gradients of one batch; return its losses."""
        with synchronize_gradients(self.model, last):  # once per step
            try:
                with torch.autocast(self.device_type, self.amp_dtype, self.amp_dtype is not None):
                    losses = self.model(batch)
            except FloatingPointError as error:  # Detectron2's check of the proposals
                return self._skipped.diverge(self.iter, file_names(batch), error)
            if isinstance(losses, Tensor):
                losses = {"total_loss": losses}
            losses = {name: loss / self.accumulate for name, loss in losses.items()}
            self.grad_scaler.scale(sum(losses.values())).backward()
            self._has_gradients = True
        if hasattr(self, "after_backward"):  # calls hooks in Detectron2's main branch
            self.after_backward()
        return losses

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _can_step(self, statistics: Sequence[StepStatistics]) -> bool:
        """Return True if all losses and the gradient are finite.

        An overflow of float16 gradients is allowed as long as the gradient scaler can reduce its
        scale; the scaler then skips the step.
        """
        if not all(one.finite for one in statistics):
            return False
        can_reduce = self.grad_scaler.is_enabled() and self.grad_scaler.get_scale() > 1
        return math.isfinite(statistics[0].grad_norm) or can_reduce

    def _add_broken(self, found: dict[str, str]) -> None:
        """Report newly broken images; raise BrokenImagesError if there are too many."""
        new = {file: error for file, error in found.items() if file not in self.broken}
        if not new:
            return
        self.broken |= new
        report_broken_images(new)
        loader = self.data_loader
        if len(self.broken) > loader.max_broken:
            raise raised_in_all_processes(
                BrokenImagesError(self.broken, len(loader.records), loader.max_broken)
            )
