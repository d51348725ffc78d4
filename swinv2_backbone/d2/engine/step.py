"""One step of optimisation: mixed precision anywhere, accumulation, clipping, and no bad step.

Before each step of the optimizer all processes tell each other what they have seen, so that they go
on, pass over the step, or stop together.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from detectron2.engine import SimpleTrainer, TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.d2.data.loading.draws import BrokenImagesError
from swinv2_backbone.d2.engine.parallel import (
    load_optimizer_state,
    optimizer_state,
    synchronise_gradients,
)
from swinv2_backbone.d2.engine.rng import rng_state, set_rng_state
from swinv2_backbone.d2.engine.signals import StopRequest
from swinv2_backbone.d2.solver.clipping import clip_gradients, gradient_norm

NORMS_KEPT = 20  # gradient norms of the last steps, for the record of a loss that is not finite


class Seen(NamedTuple):
    """What a process tells the others before a step of the optimizer."""

    losses: dict[str, float]
    grad_norm: float
    data_time: float  # seconds
    files: list[str]  # of its images
    broken: dict[str, str]  # file -> what is wrong with it, of images passed over
    signal: int  # that it should stop by, or 0

    @property
    def finite(self) -> bool:
        return all(math.isfinite(loss) for loss in self.losses.values())


class TrainingStep(SimpleTrainer):
    """Detectron2's ``SimpleTrainer`` with what transformers and long trainings need.

    Args:
        model, data_loader, optimizer: as for ``SimpleTrainer``.  Only with a
            :class:`swinv2_backbone.d2.data.loading.loader.TrainLoader` is a resumed training exact.
        amp_dtype: the lower precision of mixed precision; None: no mixed precision.
        clip: what to clip gradients by, ``kind`` "value", "norm" (of each parameter) or
            "full_model" (of all together), ``value`` and ``norm_type``; None: no clipping.
        accumulate: batches of the loader that make one step; their losses are averaged.
        max_nonfinite: steps that may be passed over because of a loss or gradient that is not
            finite; one more ends the training, its weights as they were.
        output_dir: for a record of such steps.

    Attributes:
        stop_request: of signals that should end the training.
        stopping: signal by which all processes stop after this step, or 0.
        ending: why the training ends after this step, for hooks to set; "" if it goes on.
        broken: file -> what is wrong with it, of all processes' images that were passed over.
        nonfinite: steps passed over.
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
        max_nonfinite: int = 0,
        output_dir: str = "",
    ):
        super().__init__(model, data_loader, optimizer)
        self.amp_dtype, self.clip, self.accumulate = amp_dtype, clip, accumulate
        self.device_type = next(model.parameters()).device.type
        # bfloat16 has float32's range; only float16 needs its gradients scaled.
        scaled = amp_dtype == torch.float16
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=scaled)
        self.max_nonfinite, self.output_dir = max_nonfinite, output_dir
        self.stop_request = StopRequest(launched=dist.is_initialized())
        self.stopping, self.nonfinite, self.ending = 0, 0, ""
        self.broken: dict[str, str] = {}
        self._norms: deque[tuple[int, float]] = deque(maxlen=NORMS_KEPT)
        self._resumed_rng: dict[str, Any] | None = None
        self._collected: dict[str, Any] | None = None

    def run_step(self) -> None:
        assert self.model.training, "the model was changed to eval mode during training"
        if self._resumed_rng is not None:  # only now, as building and loading may have drawn
            set_rng_state(self._resumed_rng)
            self._resumed_rng = None
        self.optimizer.zero_grad()
        losses, files, waited = {}, [], 0.0
        for part in range(self.accumulate):
            start = time.perf_counter()
            batch = next(self._data_loader_iter)
            waited += time.perf_counter() - start
            files += _files_of(batch)
            for name, loss in self._backward(batch, last=part == self.accumulate - 1).items():
                losses[name] = losses.get(name, 0.0) + loss.detach()
        self.grad_scaler.unscale_(self.optimizer)
        seen = self._tell_each_other(losses, files, waited)
        self.stopping = max(one.signal for one in seen)
        self._note_broken(seen)
        if self._finite(seen):
            if self.clip:
                clip_gradients(self._parameters(), **self.clip)
            self.grad_scaler.step(self.optimizer)
        else:
            self._pass_over(seen)
        self.grad_scaler.update()
        if comm.is_main_process():
            self._write(seen)

    def _backward(self, batch: list[dict], last: bool) -> dict[str, Tensor]:
        """Add the gradients of one batch; returns its losses."""
        # Processes exchange gradients once a step.
        with synchronise_gradients(self.model, last):
            with torch.autocast(self.device_type, self.amp_dtype, self.amp_dtype is not None):
                losses = self.model(batch)
            if isinstance(losses, Tensor):
                losses = {"total_loss": losses}
            losses = {name: loss / self.accumulate for name, loss in losses.items()}
            self.grad_scaler.scale(sum(losses.values())).backward()
        if hasattr(self, "after_backward"):  # of hooks, in Detectron2's main branch
            self.after_backward()
        return losses

    def _tell_each_other(
        self, losses: dict[str, Tensor], files: list[str], waited: float
    ) -> list[Seen]:
        take_broken = getattr(self.data_loader, "take_broken", dict)
        own = Seen(
            losses={name: float(loss) for name, loss in losses.items()},
            grad_norm=gradient_norm(self._parameters()),
            data_time=waited,
            files=files,
            broken=take_broken(),
            signal=self.stop_request.signal,
        )
        self._norms.append((self.iter, own.grad_norm))
        return comm.all_gather(own)

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _finite(self, seen: Sequence[Seen]) -> bool:
        """Whether the step may be taken.

        Gradients in float16 may overflow: then their scaler leaves the step out, and scales less,
        as long as it can.
        """
        if not all(one.finite for one in seen):
            return False
        return math.isfinite(seen[0].grad_norm) or (
            self.grad_scaler.is_enabled() and self.grad_scaler.get_scale() > 1
        )

    def _pass_over(self, seen: Sequence[Seen]) -> None:
        """Leave the weights as they are; raises FloatingPointError if that was once too often."""
        self.nonfinite += 1
        record = Path(self.output_dir, f"nonfinite_{self.iter:07d}.json")
        report = {
            "iteration": self.iter,
            "processes": [
                {"losses": _words(one.losses), "files": one.files, "finite": one.finite}
                for one in seen
            ],
            "grad_norms": [[iteration, _word(norm)] for iteration, norm in self._norms],
            "learning_rates": sorted({group["lr"] for group in self.optimizer.param_groups}),
        }
        if comm.is_main_process():
            try:
                write_text(record, json.dumps(report, indent=2) + "\n")
            except OSError as error:
                logging.getLogger(__name__).error(f"{error}: {report}")
        bad = [one for one in seen if not one.finite] or seen  # or a gradient, which all share
        text = (
            f"a loss or gradient is not finite at iteration {self.iter}, of "
            f"{', '.join(file for one in bad for file in one.files)}: {_words(bad[0].losses)}; "
            f"the weights are as they were, {record} has the rest"
        )
        if self.nonfinite > self.max_nonfinite:
            raise FloatingPointError(
                f"{text}.  {self.nonfinite} such steps, {self.max_nonfinite} may be passed over "
                "(SOLVER.MAX_NONFINITE_STEPS, train.max_nonfinite_steps)"
            )
        logging.getLogger(__name__).warning(f"Step passed over: {text}")

    def _note_broken(self, seen: Sequence[Seen]) -> None:
        found = {file: why for one in seen for file, why in one.broken.items()}
        new = {file: why for file, why in found.items() if file not in self.broken}
        if not new:
            return
        self.broken |= new
        loader = self.data_loader
        for file, why in new.items():
            logging.getLogger(__name__).warning(f"Image passed over: {file}: {why}")
        if len(self.broken) > loader.max_broken:
            raise BrokenImagesError(self.broken, len(loader.records), loader.max_broken)

    def _write(self, seen: Sequence[Seen]) -> None:
        """Means over the processes, as Detectron2 has them."""
        storage = get_event_storage()
        # What one process waits for, all wait for.
        storage.put_scalar("data_time", max(one.data_time for one in seen))
        storage.put_scalar("grad_norm", seen[0].grad_norm)
        if self.nonfinite:
            storage.put_scalar("nonfinite_steps", self.nonfinite, smoothing_hint=False)
        losses = {
            name: sum(one.losses[name] for one in seen) / len(seen) for name in seen[0].losses
        }
        storage.put_scalar("total_loss", sum(losses.values()))
        if len(losses) > 1:
            storage.put_scalars(**losses)

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Inside, ``state_dict`` has what all processes have; called by all of them at once."""
        self._collected = {
            "optimizer": optimizer_state(self.model, self.optimizer),
            "rng": comm.all_gather(rng_state()),
        }
        try:
            yield
        finally:
            self._collected = None

    def state_dict(self) -> dict[str, Any]:
        """Outside :meth:`collected`, of this process alone: then a resume is not exact."""
        own = self._collected or {
            "optimizer": self.optimizer.state_dict(),
            "rng": [rng_state()],
        }
        found = {
            **TrainerBase.state_dict(self),
            **own,
            "grad_scaler": self.grad_scaler.state_dict(),
            "nonfinite": self.nonfinite,
            "broken": self.broken,
        }
        if hasattr(self.data_loader, "state_dict"):
            found["loader"] = self.data_loader.state_dict()
        return found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        TrainerBase.load_state_dict(self, state)
        load_optimizer_state(self.model, self.optimizer, state["optimizer"])
        if state.get("grad_scaler"):  # empty after a run that needed no scaling
            self.grad_scaler.load_state_dict(state["grad_scaler"])
        self.nonfinite = state.get("nonfinite", 0)
        self.broken = dict(state.get("broken", {}))
        inexact = []
        generators = state.get("rng", [])
        if len(generators) == comm.get_world_size():
            self._resumed_rng = generators[comm.get_rank()]
        else:
            inexact.append(
                f"random generators: saved by {len(generators) or 'no'} processes, "
                f"resumed by {comm.get_world_size()}"
            )
        if "loader" in state and hasattr(self.data_loader, "load_state_dict"):
            self.data_loader.load_state_dict(state["loader"])
        else:
            inexact.append("images: a new order, as the checkpoint or the loader has none")
        if inexact:
            logging.getLogger(__name__).warning(
                f"Training goes on, but not exactly as it would have ({'; '.join(inexact)})"
            )


def _files_of(batch: Any) -> list[str]:
    """The names of the images of a batch, if it is one of Detectron2's kind."""
    records = batch if isinstance(batch, list) else []
    return [str(r["file_name"]) for r in records if isinstance(r, dict) and "file_name" in r]


def _words(losses: dict[str, float]) -> dict[str, float | str]:
    return {name: _word(loss) for name, loss in losses.items()}


def _word(value: float) -> float | str:
    """JSON has no NaN."""
    return value if math.isfinite(value) else str(value)
