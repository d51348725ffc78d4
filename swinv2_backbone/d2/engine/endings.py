"""The end of a training by an error, in one sentence: what failed, what is safe, what to do."""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from detectron2.data.detection_utils import SizeMismatchError

from swinv2_backbone.d2.data.loading.draws import BrokenImagesError
from swinv2_backbone.d2.engine.last_checkpoint import TAG
from swinv2_backbone.d2.engine.shared_errors import is_printed_here
from swinv2_backbone.d2.engine.signals import exit_code, without_interrupts
from swinv2_backbone.images.kinds import DamagedImageError

TRAIN_LOOP = logging.getLogger("detectron2.engine.train_loop")  # logs the error of a training
LOGGED = "_swinv2_logged"  # mark of an error whose traceback is in the log files
# Errors of a disk, and what helps.
DISK = {
    errno.ENOSPC: "Free space on the disk",
    errno.EDQUOT: "Free space within the quota",
    errno.EROFS: "Make the file system writable",
    errno.EIO: "Check the disk",
}
EXPECTED = (OSError, FloatingPointError, BrokenImagesError, SizeMismatchError)
IN_WORKER = "in DataLoader worker process"
# The kind of the error, behind the indented lines of a traceback.
LAST_OF_TRACEBACK = re.compile(r"\n  .*\n(?:\w+\.)*(?P<name>\w+): ")
LOST_WORKER = re.compile(r"DataLoader worker \(pid.*?\) (is killed|exited|is timed)")


@contextlib.contextmanager
def errors_in_a_sentence(folder: str | Path, training: bool = True) -> Iterator[None]:
    """End the process with a sentence for errors that a user can do something about.

    These are errors of files, images and disks, values that are not finite, a lost worker, and a
    second Ctrl-C. The log file has their tracebacks, the console does not.

    Args:
        folder: output folder.
        training: whether to say which checkpoint is the last one.

    Raises:
        SystemExit: instead of such an error.
    """
    with (
        _quiet_console(),
        _unreported(threading, "excepthook", _is_of_tensorboard),
        _unreported(sys, "unraisablehook", _is_ignored_interrupt),
    ):
        try:
            yield
        except BaseException as error:
            if isinstance(error, SystemExit) and not isinstance(error.code, str):
                raise
            if _is_interrupt(error):
                with without_interrupts():
                    print("SIGINT: ended at once" + _safe(folder, training), file=sys.stderr)
                sys.exit(exit_code(signal.SIGINT))
            if not _is_expected(error):
                raise
            _log_traceback(error)
            if not is_printed_here(error):
                sys.exit(1)
            resumes = not isinstance(error, FloatingPointError | BrokenImagesError)  # come again
            sys.exit(describe(error, folder).rstrip(".") + _safe(folder, training, resumes))


def _safe(folder: str | Path, training: bool, resumes: bool = True) -> str:
    return f". {saved_in(folder, resumes)}" if training else ""


def _is_interrupt(error: BaseException | None) -> bool:
    """Return True for Ctrl-C, also if a library has replaced it by an error of its own.

    OmegaConf and torch.save do, for example.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def setup_sentence(error: Exception, folder: str | Path) -> str:
    """Describe an error before training: only one of the disk concerns the checkpoints."""
    text = describe(error, folder)
    return f"{text}. {saved_in(folder)}" if _disk_errors(str(error)) else text


def describe(error: BaseException, folder: str | Path) -> str:
    """Describe an error, and what helps."""
    text = _text(error)
    if LOST_WORKER.search(text):
        return f"{text} A worker is often killed because memory is short: use fewer workers"
    if isinstance(error, OSError):
        remedies = _disk_errors(text)
        if remedies and error.filename is None and str(folder) not in text:
            text += f" (in {folder})"
        return ". ".join([text, *remedies])
    return text


def _text(error: BaseException) -> str:
    """Return the kind of an error and its message; in a loader worker, those without a traceback.

    PyTorch adds the traceback of the worker to the message.
    """
    _, in_worker, trace = str(error).partition(IN_WORKER)
    if in_worker and (ends := list(LAST_OF_TRACEBACK.finditer(trace))):
        return trace[ends[-1].start("name") :].strip()
    return f"{type(error).__name__}: {error}"


def _disk_errors(text: str) -> list[str]:
    """Return what helps against the errors of the disk in a text.

    An error that was gathered from another process, or has been described, is only a text.
    """
    return [remedy for number, remedy in DISK.items() if f"[Errno {number}]" in text]


def saved_in(folder: str | Path, resumes: bool = True) -> str:
    """Describe the last checkpoint of a folder.

    Args:
        resumes: whether ``--resume`` is the way to continue.
    """
    try:
        name = Path(folder, TAG).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        name = ""
    if not name:
        return f"There is no checkpoint in {folder}"
    return f"The last checkpoint is {Path(folder, name)}" + "; --resume continues from it" * resumes


def _is_expected(error: BaseException | None) -> bool:
    if isinstance(error, EXPECTED):
        return True
    if not isinstance(error, RuntimeError):
        return False
    # PyTorch replaces an error of a worker by this one if it cannot make another one of its kind.
    name = _text(error).partition(":")[0]
    return bool(LOST_WORKER.search(str(error))) or name == DamagedImageError.__name__


@contextlib.contextmanager
def _quiet_console() -> Iterator[None]:
    """Keep the tracebacks of expected errors, which Detectron2 logs, off the console."""
    TRAIN_LOOP.addFilter(_only_to_files)
    try:
        yield
    finally:
        TRAIN_LOOP.removeFilter(_only_to_files)


def _log_traceback(error: BaseException) -> None:
    """Write the traceback of an error to the log files, unless Detectron2 has."""
    if not getattr(error, LOGGED, False):
        TRAIN_LOOP.error("Exception:", exc_info=error)


def _only_to_files(record: logging.LogRecord) -> bool:
    """Write a record with an expected error to the log files; return False for such a record."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None or not _is_expected(error):
        return True
    setattr(error, LOGGED, True)
    for handler in logging.getLogger("detectron2").handlers:
        if getattr(handler, "stream", None) not in (sys.stdout, sys.stderr):
            handler.handle(record)
    return False


@contextlib.contextmanager
def _unreported(owner: Any, hook: str, passes: Callable[[Any], bool]) -> Iterator[None]:
    """Let a hook with which Python reports errors pass over some."""
    before = getattr(owner, hook)

    def report(args: Any) -> None:
        if not passes(args):
            before(args)

    setattr(owner, hook, report)
    try:
        yield
    finally:
        setattr(owner, hook, before)


def _is_of_tensorboard(args: threading.ExceptHookArgs) -> bool:
    """Return True for an error of the disk that TensorBoard's writer raises again."""
    ours = type(args.thread).__module__.partition(".")[0] == "tensorboard"
    return ours and isinstance(args.exc_value, OSError)


def _is_ignored_interrupt(args: sys.UnraisableHookArgs) -> bool:
    """Return True for a second Ctrl-C where Python ignores it, such as while it starts a worker."""
    return isinstance(args.exc_value, KeyboardInterrupt)
