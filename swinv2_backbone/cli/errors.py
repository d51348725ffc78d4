"""Errors that a user can fix, as one line instead of a traceback or warnings of libraries."""

from __future__ import annotations

import importlib.util
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

# What installs with Detectron2, and is missing without it.
WITH_DETECTRON2 = {"cv2", "detectron2", "fvcore", "iopath", "omegaconf", "pycocotools", "yacs"}
NO_DETECTRON2 = "{} is not installed, which this command needs: swinv2 install-detectron2"
# Warnings of libraries about themselves, while they are imported: (start of the message, category).
OF_LIBRARIES: tuple[tuple[str, type[Warning]], ...] = (
    ("`torch.jit.script` is deprecated", FutureWarning),
    ("pkg_resources is deprecated", UserWarning),
)


@contextmanager
def errors_as_messages(*others: type[Exception]) -> Iterator[None]:
    """End the process with ``ValueError: ...`` for an error that the user can fix.

    Ctrl-C ends it with the exit code of shells, 130. The warnings of other libraries about their
    own code do not precede a message.

    Args:
        others: further kinds of errors, besides ImportError, OSError and ValueError.
    """
    kinds: tuple[type[Exception], ...] = (ImportError, OSError, ValueError, *others)
    silence_libraries()
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        remedy = f"\n{NO_DETECTRON2.format(package)}" if package in WITH_DETECTRON2 else ""
        sys.exit(f"{type(error).__name__}: {error}{remedy}")
    except KeyboardInterrupt:
        interrupted()
    except kinds as error:
        sys.exit(f"{type(error).__name__}: {error}")


def interrupted() -> NoReturn:
    """End the process after Ctrl-C, without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # another one ends it at once
    print("Interrupted", file=sys.stderr)
    sys.exit(130)


def silence_libraries() -> None:
    """Ignore the warnings of other libraries about their own code, here and in new processes.

    Options of the user's own, python -W or PYTHONWARNINGS, have precedence.
    """
    if sys.warnoptions:
        return
    for start, category in OF_LIBRARIES:
        warnings.filterwarnings("ignore", start, category)
        # Python starts the processes of a training with these.
        sys.warnoptions.append(f"ignore:{start}:{category.__name__}")


def require_detectron2() -> None:
    """Raise ModuleNotFoundError if Detectron2 is not installed, without importing it."""
    if importlib.util.find_spec("detectron2") is None:
        raise ModuleNotFoundError("No module named 'detectron2'", name="detectron2")
