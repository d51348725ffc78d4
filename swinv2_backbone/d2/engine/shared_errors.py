"""Errors that all processes of a training raise, so that none waits for the others."""

from __future__ import annotations

from typing import TypeVar

from detectron2.utils import comm

E = TypeVar("E", bound=Exception)
MARK = "_swinv2_in_all_processes"


def raise_in_all_processes(failure: Exception | None) -> None:
    """Raise the error that any process has met; all processes must call this.

    Args:
        failure: the error of this process, with a message as its only argument; None without one.
    """
    own = None if failure is None else (type(failure), str(failure))
    if found := next(filter(None, comm.all_gather(own)), None):
        kind, text = found
        raise raised_in_all_processes(kind(text))


def raised_in_all_processes(error: E) -> E:
    """Mark an error that all processes raise by themselves."""
    setattr(error, MARK, True)
    return error


def is_printed_here(error: BaseException) -> bool:
    """Return False for an error that the main process also has, and prints."""
    return comm.is_main_process() or not getattr(error, MARK, False)
