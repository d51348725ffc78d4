"""The options that a checkpoint was trained with, and their changes on a resume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from detectron2.solver import LRMultiplier
from torch.optim.lr_scheduler import LRScheduler

from swinv2_backbone.d2.config.options import Dialect
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.config.rules import ConfigError
from swinv2_backbone.d2.config.sections import OPTIONS

RECORDED = (
    "optimizer.",
    "schedule.",
    "clipping.",
    "step.batch_size",
    "step.accumulate",
    "step.ema",
)
TYPES = {"optimizer.name": "optimizer", "schedule.name": "schedule"}  # may not change on a resume
ABSENT = "none"


class RunOptions:
    """The options of optimizer, schedule and clipping, as a part of a checkpoint.

    Attributes:
        before: options of the resumed checkpoint; None if it has none, or nothing is resumed.
    """

    def __init__(self, plan: TrainingPlan):
        self.plan = plan
        options = plan.effective().items()
        self.options = {name: value for name, value in options if name.startswith(RECORDED)}
        self.before: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        return dict(self.options)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep the options of a checkpoint for :meth:`changes`.

        Raises:
            ConfigError: it was trained with another type of optimizer or schedule.
        """
        if faults := list(self._other_types(state)):
            raise ConfigError(faults)
        self.before = state

    def changes(self, groups: Mapping[str, tuple[list, list]]) -> list[str]:
        """Return the changes since the checkpoint, as "KEY old -> new".

        Args:
            groups: changed settings of the parameter groups, with their values then and now.
        """
        before = self.options if self.before is None else self.before
        names = [*self.options, *(name for name in before if name not in self.options)]
        pairs = {
            name: (before[name] if name in before else self._absent(name), self._now(name))
            for name in names
            if name in OPTIONS
        }
        changed = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        found = [f"{self.plan.key(name)} {old} -> {new}" for name, (old, new) in changed.items()]
        if not any(name.startswith("optimizer.") for name in changed):
            found += [f"{key} {_range(old)} -> {_range(new)}" for key, (old, new) in groups.items()]
        return found

    def _absent(self, name: str) -> Any:
        """Return the earlier value of an option that the checkpoint lacks.

        It had no effect then, or did not exist: if it has its default now, nothing has changed.
        """
        default = OPTIONS[name].default_in(self.plan.dialect)
        return default if self.options[name] == default and not _is_switch(name) else _off(name)

    def _now(self, name: str) -> Any:
        return self.options[name] if name in self.options else _off(name)

    def _other_types(self, state: dict[str, Any]) -> Iterator[str]:
        plan = self.plan
        for name, what in TYPES.items():
            old, new = state.get(name, self.options[name]), self.options[name]
            if old == new:
                continue
            same = plan.setting(name, old)
            if plan.dialect is Dialect.LAZY:
                same = f"{plan.key(name)} to a {old}"
            yield (
                f"{plan.key(name)} is {new}, but the checkpoint was trained with {old}; another "
                f"{what} cannot continue it: set {same}, or start from its weights, with "
                f"{plan.key('run.weights')}, another {plan.key('run.output_dir')} and without "
                "--resume"
            )


def update_rates(scheduler: Any, optimizer: torch.optim.Optimizer) -> None:
    """Recompute the learning rates from the initial ones of the parameter groups.

    A schedule that is built before the resume has restored its old rates.
    """
    if not isinstance(scheduler, LRScheduler) or not hasattr(scheduler, "base_lrs"):
        return
    groups = optimizer.param_groups
    scheduler.base_lrs = [group["initial_lr"] for group in groups]
    if isinstance(scheduler, LRMultiplier):  # others cannot compute a rate without a step
        for group, rate in zip(groups, scheduler.get_lr()):
            group["lr"] = rate


def _is_switch(name: str) -> bool:
    return name.endswith(".enabled")


def _off(name: str) -> Any:
    """Return the value of an option without effect."""
    return False if _is_switch(name) else ABSENT


def _range(values: list) -> str:
    """Format the values of several groups."""
    numbers = all(isinstance(value, int | float) for value in values)
    if len(values) == 1 or not numbers:
        return ", ".join(map(str, values))
    return f"{min(values):g} to {max(values):g}"
