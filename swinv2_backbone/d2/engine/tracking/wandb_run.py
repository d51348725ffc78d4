"""A run of Weights & Biases."""

from __future__ import annotations

import os
import secrets
from typing import Any

import wandb

from swinv2_backbone.d2.engine.tracking.tracker import (
    FINISHED,
    PREEMPTED,
    Description,
    pixels_of,
)

STEP = "iteration"
FINISH_TIMEOUT = 60.0  # seconds to wait for uploads at the end


class WandbRun:
    """A run of Weights & Biases, which its own process uploads while training goes on.

    The environment variables of its library apply, such as ``WANDB_MODE`` and ``WANDB_ENTITY``.
    """

    run: Any

    def start(self, run: Description, offline: bool) -> str:
        # Without a key, its library would ask for one in a terminal, and wait.
        if not (offline or "WANDB_MODE" in os.environ or wandb.login(prompt=False)):
            raise ConnectionError("no API key: run `wandb login`, or set WANDB_API_KEY")
        self.run = wandb.init(
            project=run.project,
            name=run.name or None,
            id=run.id or secrets.token_hex(4),
            resume="allow",
            dir=str(run.folder),
            config=run.options,
            allow_val_change=True,  # a resumed run may have another setting
            mode="offline" if offline else None,
            settings=wandb.Settings(finish_timeout=FINISH_TIMEOUT),
        )
        # An axis of our own: its library drops what a resumed run logs again after a kill.
        self.run.define_metric(STEP)
        self.run.define_metric("*", step_metric=STEP)
        return self.run.id

    def log(self, iteration: int, values: dict[str, float]) -> None:
        self.run.log({STEP: iteration, **values})

    def image(self, iteration: int, name: str, image: Any) -> None:
        self.run.log({STEP: iteration, name: wandb.Image(pixels_of(image))})

    def end(self, state: str) -> None:
        if state == PREEMPTED:
            self.run.mark_preempting()
        self.run.finish(exit_code=int(state != FINISHED))
