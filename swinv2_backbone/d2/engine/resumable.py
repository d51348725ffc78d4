"""A trainer whose state allows a run to be resumed exactly."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.engine import SimpleTrainer, TrainerBase
from detectron2.utils import comm
from torch import nn

from swinv2_backbone.d2.engine.optimizer_settings import (
    Groups,
    groups_of_state,
    recorded_groups,
    regrouped,
    take_changes,
)
from swinv2_backbone.d2.engine.rng import rng_state, set_rng_state
from swinv2_backbone.d2.engine.sharded_state import load_optimizer_state, optimizer_state


class ResumableTrainer(SimpleTrainer):
    """Detectron2's ``SimpleTrainer`` with the state of generators, loader and shards.

    A run is resumed exactly only with a data loader that has a state, such as
    :class:`swinv2_backbone.d2.data.loading.loader.TrainLoader`, and with the same number of
    processes.

    Attributes:
        changes: settings of the optimizer that were changed since the checkpoint that was loaded;
            see :func:`swinv2_backbone.d2.engine.optimizer_settings.take_changes`.
    """

    _collected: dict[str, Any] | None = None
    _resumed_rng: dict[str, Any] | None = None

    def __init__(self, model: nn.Module, data_loader: Any, optimizer: torch.optim.Optimizer):
        super().__init__(model, data_loader, optimizer)
        self._groups = recorded_groups(model, optimizer)
        self.changes: dict[str, tuple[list, list]] = {}

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Include the state of all processes in ``state_dict``; all processes must call this."""
        self._collected = {
            "optimizer": optimizer_state(self.model, self.optimizer),
            "rng": comm.all_gather(rng_state()),
        }
        try:
            yield
        finally:
            self._collected = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state; outside :meth:`collected`, only that of this process."""
        own = self._collected or {"optimizer": self.optimizer.state_dict(), "rng": [rng_state()]}
        state = {**TrainerBase.state_dict(self), **own, "groups": self._groups}
        if hasattr(self.data_loader, "state_dict"):
            state["loader"] = self.data_loader.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state, and log a warning if training cannot resume exactly."""
        TrainerBase.load_state_dict(self, state)
        self._load_optimizer(state["optimizer"], state.get("groups"))
        differences = [*self._load_rng(state.get("rng", [])), *self._load_position(state)]
        if differences:
            logging.getLogger(__name__).warning(
                "Training resumes, but not exactly as it would have continued "
                f"({'; '.join(differences)})"
            )

    def _load_optimizer(self, state: dict[str, Any], then: Groups | None) -> None:
        """Restore the optimizer, with the settings that were changed since then."""
        then = then or groups_of_state(state, self._groups)
        loaded = regrouped(state, then, self._groups)
        # How a step is computed is that of this run: fused steps keep their counter on the device,
        # and GradScaler relies on the optimizer that was built.
        groups = [
            group | {key: own[key] for key in ("fused",) if key in own}
            for group, own in zip(loaded["param_groups"], self.optimizer.param_groups)
        ]
        load_optimizer_state(self.model, self.optimizer, {**loaded, "param_groups": groups})
        self.changes = take_changes(self.optimizer, then, self._groups)

    def restore_rng(self) -> None:
        """Restore the random generators on resume; call this before the first step."""
        if self._resumed_rng is not None:
            set_rng_state(self._resumed_rng)
            self._resumed_rng = None

    def _load_rng(self, states: list[dict[str, Any]]) -> Iterator[str]:
        """Keep the state of the generators until the first step: others may draw before it."""
        if len(states) == comm.get_world_size():
            self._resumed_rng = states[comm.get_rank()]
        else:
            yield (
                f"random generators: saved by {len(states) or 'no'} processes, "
                f"resumed by {comm.get_world_size()}"
            )

    def _load_position(self, state: dict[str, Any]) -> Iterator[str]:
        """Restore the position of the loader in the stream of images."""
        if "loader" in state and hasattr(self.data_loader, "load_state_dict"):
            self.data_loader.load_state_dict(state["loader"])
        else:
            yield "images: in a new order, because the checkpoint or the loader has no position"
