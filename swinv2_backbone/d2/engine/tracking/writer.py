"""What a training logs, as an EventWriter of Detectron2 that hands it to the trackers."""

from __future__ import annotations

import json
import logging
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils.events import EventWriter, get_event_storage

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.checkpoints.records import read_record_or
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.engine.tracking.tracker import (
    FAILED,
    FINISHED,
    PREEMPTED,
    Description,
    Tracker,
    new_tracker,
)

logger = logging.getLogger(__name__)
RECORD = "trackers.json"  # name -> id of the run and whether it is offline, for --resume


class Tracking(HookBase, EventWriter):
    """Log metrics, learning rate, results and images to the trackers of a plan.

    It is both a hook, which starts the runs, and a writer, which must come before Detectron2's
    TensorBoard writer because that removes the images. Only the main process has it. A tracker that
    fails never stops training: it goes on offline, in the output folder, or without the tracker.

    Args:
        resumed: whether the training continues an earlier one, whose runs are then continued.
        ended: whether the training has come to an end that is not to be resumed.
    """

    def __init__(self, plan: TrainingPlan, resumed: Callable[[], bool], ended: Callable[[], bool]):
        self.plan, self.resumed, self.ended = plan, resumed, ended
        self.folder = Path(plan.run.output_dir)
        self.running: dict[str, Tracker] = {}
        self.record: dict[str, dict[str, Any]] = {}
        self.last_values = self.last_images = -1

    def before_train(self) -> None:
        remedy = "the trackers get new runs"
        earlier = read_record_or({}, self.folder / RECORD, remedy) if self.resumed() else {}
        for name in dict.fromkeys(self.plan.run.trackers):
            self._start(name, earlier.get(name, {}))

    def write(self) -> None:
        storage = get_event_storage()
        values: dict[int, dict[str, float]] = defaultdict(dict)
        for key, (value, iteration) in storage.latest().items():
            if iteration > self.last_values:
                values[iteration][key] = float(value)
        for iteration in sorted(values):
            self._each("log", iteration, values[iteration])
        self.last_values = max(values, default=self.last_values)
        for name, image, iteration in storage._vis_data:
            if iteration > self.last_images:
                self._each("image", iteration, name, image)
        self.last_images = max([self.last_images, *(step for *_, step in storage._vis_data)])

    def close(self) -> None:
        """End the runs; during an exception, it decides on the state."""
        self._each("end", self._state())
        self.running = {}

    def _state(self) -> str:
        error = sys.exc_info()[1]
        if error is None or isinstance(error, SystemExit) and self.ended():
            return FINISHED
        return PREEMPTED if isinstance(error, SystemExit | KeyboardInterrupt) else FAILED

    def _start(self, name: str, earlier: dict[str, Any]) -> None:
        """Start a run, or an offline run where that is not possible."""
        run, before = self.plan.run, earlier.get("offline", False)
        for offline in (True,) if before else (False, True):
            id = earlier.get("id") if offline == before else None
            description = Description(
                run.tracking_project, run.tracking_name, id, self._options(), self.folder
            )
            try:
                tracker = new_tracker(name)
                self.record[name] = {"id": tracker.start(description, offline), "offline": offline}
            except Exception as error:
                what = "the run is not logged there" if offline else "trying an offline run"
                logger.warning(f"{name} cannot start a run, so {what}: {_line(error)}")
                continue
            self.running[name] = tracker
            break
        self._save()

    def _save(self) -> None:
        try:
            write_text(self.folder / RECORD, json.dumps(self.record, indent=1) + "\n")
        except OSError as error:
            logger.warning(f"a resumed run will not continue the runs of its trackers: {error}")

    def _options(self) -> dict[str, Any]:
        found = {self.plan.key(name): value for name, value in self.plan.effective().items()}
        return {key: value for key, value in found.items() if key}  # some have one dialect's only

    def _each(self, method: str, *args: Any) -> None:
        """Call a method of each tracker; one that fails is replaced by an offline run."""
        for name in list(self.running):
            if self._call(name, method, args):
                continue
            if method != "end" and not self.record[name]["offline"]:
                self._start(name, {"offline": True})
                self._call(name, method, args)

    def _call(self, name: str, method: str, args: tuple) -> bool:
        """Call a method of a tracker; return False, and leave it out, if it fails."""
        try:
            if name in self.running:
                getattr(self.running[name], method)(*args)
        except Exception as error:
            del self.running[name]
            logger.warning(f"{name} failed, training goes on without that run: {_line(error)}")
            return False
        return True


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
