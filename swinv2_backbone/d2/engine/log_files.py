"""Log files that a full disk does not turn into tracebacks."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import IO

from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

LOGGERS = ("swinv2_backbone", "detectron2", "fvcore")


def open_logs(folder: str | os.PathLike) -> None:
    """Call Detectron2's ``setup_logger``, and let its log files survive errors of the disk.

    Python's logging prints a traceback for every message that cannot be written.
    """
    rank = comm.get_rank()
    # As default_setup calls it, which then adds no further handlers.
    for more in ({"name": "fvcore"}, {}, {"name": "swinv2_backbone"}):
        setup_logger(str(folder), distributed_rank=rank, **more)
    for name in LOGGERS:
        for handler in logging.getLogger(name).handlers:
            # Not those of the user, such as a FileHandler.
            if type(handler) is logging.StreamHandler and _is_in(handler.stream, Path(folder)):
                handler.setStream(_LogFile(handler.stream))


def _is_in(stream: IO[str], folder: Path) -> bool:
    name = getattr(stream, "name", None)
    return isinstance(name, str) and Path(name).absolute().parent == folder.absolute()


class _LogFile:
    """A log file; the first error is told on the console, and messages then go there alone.

    It writes without a buffer, which Python would try to write once more at exit.
    """

    def __init__(self, stream: IO[str]):
        stream.flush()
        self.stream, self.failed = stream, False

    def write(self, text: str) -> None:
        data = text.encode(errors="backslashreplace")
        try:
            while data:
                data = data[os.write(self.stream.fileno(), data) :]
        except OSError as error:
            if not self.failed:
                self.failed = True
                print(
                    f"{self.stream.name} cannot be written ({error}): messages that it cannot "
                    "take are only on the console",
                    file=sys.stderr,
                )

    def flush(self) -> None:
        """Do nothing: there is no buffer."""
