"""One step of optimisation: mixed precision anywhere, gradient accumulation, clipping."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import torch
from detectron2.engine import SimpleTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

CLIPPING = ("value", "norm", "full_model")


class TrainingStep(SimpleTrainer):
    """Detectron2's ``SimpleTrainer`` with what transformers need.

    Args:
        model, data_loader, optimizer: as for ``SimpleTrainer``.
        amp_dtype: the lower precision of mixed precision; None: no mixed precision.
        clip: what to clip gradients by, ``kind`` "value", "norm" (of each parameter) or
            "full_model" (of all together), ``value`` and ``norm_type``; None: no clipping.
        accumulate: batches of the loader that make one step; their losses are averaged.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader,
        optimizer: torch.optim.Optimizer,
        *,
        amp_dtype: torch.dtype | None = None,
        clip: dict | None = None,
        accumulate: int = 1,
    ):
        super().__init__(model, data_loader, optimizer)
        self.amp_dtype, self.clip, self.accumulate = amp_dtype, clip, accumulate
        self.device_type = next(model.parameters()).device.type
        # bfloat16 has float32's range; only float16 needs its gradients scaled.
        scaled = amp_dtype == torch.float16
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=scaled)

    def run_step(self) -> None:
        assert self.model.training, "the model was changed to eval mode during training"
        self.optimizer.zero_grad()
        total, data_time = {}, 0.0
        for part in range(self.accumulate):
            losses, waited = self._backward(last=part == self.accumulate - 1)
            data_time += waited
            for name, loss in losses.items():
                total[name] = total.get(name, 0.0) + loss.detach()
        self._write_metrics(total, data_time)  # raises if a loss is not finite
        self.grad_scaler.unscale_(self.optimizer)
        if self.clip:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            clip_gradients(parameters, **self.clip)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _backward(self, last: bool) -> tuple[dict[str, Tensor], float]:
        """Add the gradients of one batch; returns its losses and the seconds waited for it."""
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        waited = time.perf_counter() - start
        distributed = isinstance(self.model, DistributedDataParallel)
        # Processes exchange gradients once a step.
        alone = self.model.no_sync() if distributed and not last else contextlib.nullcontext()
        amp = torch.autocast(self.device_type, self.amp_dtype, self.amp_dtype is not None)
        with alone:
            with amp:
                losses = self.model(data)
            if isinstance(losses, Tensor):
                losses = {"total_loss": losses}
            losses = {name: loss / self.accumulate for name, loss in losses.items()}
            self.grad_scaler.scale(sum(losses.values())).backward()
        return losses, waited

    def state_dict(self) -> dict:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        if state_dict.get("grad_scaler"):  # empty after a run that needed no scaling
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def clip_gradients(
    parameters: Sequence[nn.Parameter], kind: str, value: float, norm_type: float = 2.0
) -> None:
    """Clip in place; see :class:`TrainingStep`.

    Raises:
        ValueError: ``kind`` is unknown.
    """
    if kind == "value":
        nn.utils.clip_grad_value_(parameters, value)
    elif kind == "norm":
        for parameter in parameters:
            nn.utils.clip_grad_norm_(parameter, value, norm_type)
    elif kind == "full_model":
        nn.utils.clip_grad_norm_(parameters, value, norm_type)
    else:
        raise ValueError(f"gradients are clipped by {', '.join(CLIPPING)}, not by {kind!r}")
