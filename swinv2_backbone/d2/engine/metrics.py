"""The metrics of a run, as files that survive a killed process and a full disk.

Both writers take the place of Detectron2's of the same purpose, and have their formats.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    TensorboardXWriter,
    get_event_storage,
)

from swinv2_backbone.checkpoints.durable import write_text

logger = logging.getLogger(__name__)
FILE = "metrics.json"
REPLACED = "metrics_replaced.json"  # lines of iterations that were done again, or of earlier runs
WINDOW = 20  # iterations over which the values are smoothed, as in Detectron2


def run_writers(folder: str | os.PathLike, max_iter: int) -> list[EventWriter]:
    """Return the writers of a run: console and log, ``metrics.json``, TensorBoard."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return [CommonMetricPrinter(max_iter), MetricsFile(folder), TensorBoard(folder)]


def read_lines(file: Path) -> list[tuple[str, dict[str, Any] | None]]:
    """Read the lines of a metrics.json, each with its metrics.

    They are None for a line that is not a JSON object with an iteration. The last line can be
    incomplete, if the process was killed while it was written.
    """
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    return [(line, _metrics(line)) for line in text.splitlines() if line.strip()]


def _metrics(line: str) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict) and isinstance(found.get("iteration"), int):
            return found
    return None


class RunWriter(EventWriter):
    """An EventWriter that is told where a run begins."""

    def begin(self, iteration: int) -> None:
        """Prepare the files for metrics from ``iteration`` on.

        Raises:
            OSError: a file cannot be written.
        """
        raise NotImplementedError


class MetricsFile(RunWriter):
    """Detectron2's ``JSONWriter``: a line for every iteration with metrics.

    A run that resumes moves the lines of the iterations that it repeats to
    ``metrics_replaced.json``, and so does a run that starts anew in the folder of another one.
    Lines that cannot be written are kept, and written when it is possible again.
    """

    def __init__(self, folder: str | os.PathLike):
        self.path = Path(folder, FILE)
        self.written: dict[str, int] = {}  # name -> iteration of its last value
        self.pending = ""
        self.first: int | None = None  # iteration from which on lines must be moved away

    def begin(self, iteration: int) -> None:
        self.first = iteration
        self._move_lines(iteration)
        self.first = None

    def _move_lines(self, iteration: int) -> None:
        kept: list[str] = []
        replaced: list[str] = []
        for line, values in read_lines(self.path):
            if values is None or values["iteration"] >= iteration:
                replaced.append(f"{line}\n")
                continue
            kept.append(f"{line}\n")
            self.written |= dict.fromkeys(values, values["iteration"])
        if not replaced:
            return
        _append(self.path.with_name(REPLACED), "".join(replaced))
        write_text(self.path, "".join(kept))
        logger.info(
            f"{self.path}: {len(replaced)} lines from iteration {iteration} on were moved to "
            f"{REPLACED}"
        )

    def write(self) -> None:
        if self.first is not None:  # it was not possible before
            self.begin(self.first)
        values: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, at) in get_event_storage().latest_with_smoothing_hint(WINDOW).items():
            if at > self.written.get(name, -1):
                values[at][name] = value
                self.written[name] = at
        for iteration, found in values.items():
            self.pending += json.dumps(found | {"iteration": iteration}, sort_keys=True) + "\n"
        _append(self.path, self.pending)
        self.pending = ""


class TensorBoard(TensorboardXWriter, RunWriter):
    """Detectron2's writer, which starts a new file after an error of the disk.

    TensorBoard does not show the values of the iterations that a resumed run repeats.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder, self.start = str(folder), 0
        self._window_size, self._last_write = WINDOW, -1
        self._writer: Any = None

    def begin(self, iteration: int) -> None:
        self.start = iteration
        self._open()

    def _open(self) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second

        if self._writer is None:
            self._writer = SummaryWriter(self.folder, purge_step=self.start)

    def write(self) -> None:
        written = self._last_write
        try:
            self._open()
            super().write()
            self._writer.flush()
        except OSError:  # the next file has what this one could not take
            self._writer, self._last_write = None, written
            self.start = max(self.start, written + 1)
            raise

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _append(path: Path, text: str) -> None:
    """Append lines to a file, all or none of them.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    data = text.encode()
    if not data:
        return
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(file).st_size
        try:
            while data:
                data = data[os.write(file, data) :]
            os.fsync(file)
        except OSError as error:
            os.ftruncate(file, size)
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(file)
