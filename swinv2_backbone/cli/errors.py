"""Errors that a user can fix, as one line instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def errors_as_messages(*others: type[Exception]) -> Iterator[None]:
    """End the process with ``ValueError: ...`` for an error that the user can fix.

    Args:
        others: further kinds of errors, besides ImportError, OSError and ValueError.
    """
    kinds: tuple[type[Exception], ...] = (ImportError, OSError, ValueError, *others)
    try:
        yield
    except kinds as error:
        sys.exit(f"{type(error).__name__}: {error}")
