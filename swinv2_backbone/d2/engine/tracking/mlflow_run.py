"""A run of MLflow."""

from __future__ import annotations

import os
import re
import time
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from swinv2_backbone.d2.engine.tracking.tracker import (
    FAILED,
    FINISHED,
    PREEMPTED,
    Description,
    pixels_of,
)

STATES = {FINISHED: "FINISHED", FAILED: "FAILED", PREEMPTED: "KILLED"}
LONGEST_VALUE, MOST_PARAMS = 6000, 100  # limits of MLflow's parameters
# Its library would try an unreachable server for minutes, in which no iteration is trained.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class MlflowRun:
    """A run of MLflow, on the server of ``MLFLOW_TRACKING_URI`` or MLflow's local default.

    An offline run is in ``mlflow.db`` and ``mlartifacts`` of the output folder.
    """

    client: MlflowClient
    id: str

    def start(self, run: Description, offline: bool) -> str:
        for key, value in PATIENCE.items():
            os.environ.setdefault(key, value)
        database = (run.folder / "mlflow.db").resolve()
        self.client = MlflowClient(f"sqlite:///{database.as_posix()}" if offline else None)
        if run.id is not None:
            self.client.update_run(run.id, status="RUNNING")
            self.id = run.id
        else:
            artifacts = (run.folder / "mlartifacts").resolve().as_uri() if offline else None
            experiment = self._experiment(run.project, artifacts)
            self.id = self.client.create_run(experiment, run_name=run.name or None).info.run_id
            self._log_params(run.options)
        config = "".join(f"{key}: {value}\n" for key, value in run.options.items())
        self.client.log_text(self.id, config, f"config/{time.strftime('%Y%m%d-%H%M%S')}.txt")
        return self.id

    def log(self, iteration: int, values: dict[str, float]) -> None:
        now = time.time_ns() // 1_000_000
        metrics = [Metric(_name(key), value, now, iteration) for key, value in values.items()]
        self.client.log_batch(self.id, metrics=metrics)

    def image(self, iteration: int, name: str, image: Any) -> None:
        self.client.log_image(
            self.id, pixels_of(image), key=_name(name).replace(":", "_"), step=iteration
        )

    def end(self, state: str) -> None:
        self.client.set_terminated(self.id, STATES[state])

    def _experiment(self, name: str, artifacts: str | None) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        return self.client.create_experiment(name, artifact_location=artifacts)

    def _log_params(self, options: dict[str, Any]) -> None:
        """Log the options, which MLflow never lets change: those of a resume are a file."""
        params = [Param(_name(key), str(value)[:LONGEST_VALUE]) for key, value in options.items()]
        for first in range(0, len(params), MOST_PARAMS):
            self.client.log_batch(self.id, params=params[first : first + MOST_PARAMS])


def _name(key: str) -> str:
    """Replace the characters that MLflow refuses, as in a class name with brackets."""
    return re.sub(r"[^\w\-. :/]", "_", key)
