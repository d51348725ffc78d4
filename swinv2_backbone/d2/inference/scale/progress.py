"""The progress of all processes of a large run as one line, counted by the files of results."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import TextIO

from swinv2_backbone.d2.inference.scale.run_record import Run

TERMINAL, LOG = 2.0, 30.0  # seconds between two lines: one that is replaced, one of many


class Progress:
    """A line with the images that are done, the rate since the start, and the time left.

    Args:
        stream: a terminal, where one line is replaced every two seconds, or a file, which gets a
            line every 30 seconds.
    """

    def __init__(self, run: Run, stream: TextIO | None = None):
        self.run, self.stream = run, stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.start = self.shown = time.monotonic()
        self.before = self._done()

    def __call__(self) -> None:
        """Print the line if the last one is old."""
        now = time.monotonic()
        if now - self.shown >= (TERMINAL if self.terminal else LOG):
            self.shown = now
            self._print("\r" if self.terminal else "\n")

    def end(self) -> None:
        """Print the last line."""
        self._print("\n")

    def line(self) -> str:
        done, count = self._done(), self.run.count
        rate = (done - self.before) / max(time.monotonic() - self.start, 1e-9)
        left = timedelta(seconds=round((count - done) / rate)) if rate else "unknown time"
        share = f"{done:,} of {count:,} images ({done / count:.1%})"
        return f"{share}, {rate:.1f} images/s, {left} left"

    def _print(self, end: str) -> None:
        line = self.line()
        print(f"{line:<79}" if self.terminal else line, end=end, file=self.stream, flush=True)

    def _done(self) -> int:
        return self.run.count - sum(self.run.size(shard) for shard in self.run.missing())
