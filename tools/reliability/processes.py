"""The real commands in processes that are watched, killed and waited for.

A command of one process is forked from this one, which has imported everything: an import of
PyTorch and Detectron2 takes seconds. It has signal handlers, a console, a session and an end of its
own, as a process that the shell starts.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

import swinv2_backbone
from swinv2_backbone.cli import train, train_net
from swinv2_backbone.d2.engine import evaluate, step
from swinv2_backbone.d2.engine.checkpoint import Checkpointer

PATIENCE = 300.0  # seconds after which a command that does not end hangs
PHASES: dict[str, tuple[Any, str]] = {  # what a forked command tells about: before and after
    "save": (Checkpointer, "save"),
    "evaluation": (evaluate.Evaluate, "_do_eval"),
    "step": (step.TrainingStep, "run_step"),
    "config": (train_net, "set_up"),
}
Prepare = Callable[[], None]
Main = Callable[[Sequence[str]], Any]


class Command:
    """A command in a forked process, which is the leader of a session.

    It tells its phases through a pipe: ``save``, ``/save`` and so on, with the arguments.

    Args:
        argv: arguments of the command.
        console: file to which its output is added.
        prepare: called in the process before the command, to inject a failure there.
        main: the command; default: ``swinv2 train``.

    Attributes:
        told: what the process has told, in order.
        code: its exit code, as subprocess gives it; None while it runs.
        hung: True if it had to be killed because it did not end.
    """

    def __init__(
        self,
        argv: Sequence[str],
        console: Path,
        prepare: Prepare | None = None,
        main: Main = train.main,
    ):
        self.console, self.told, self.hung = console, list[str](), False
        self.code: int | None = None
        self._begin = console.stat().st_size if console.exists() else 0
        self._pipe, told = os.pipe()
        self._rest, self._open = b"", True
        self.process = self._start(argv, prepare, main, told)
        os.close(told)

    def _start(self, argv: Sequence[str], prepare: Prepare | None, main: Main, told: int) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if not process:
            os.close(self._pipe)
            _run(argv, self.console, prepare, main, told)
        return process

    @property
    def text(self) -> str:
        """What this command has written to its console."""
        return self.console.read_bytes()[self._begin :].decode(errors="replace")

    @property
    def last(self) -> str:
        """The last line on the console."""
        return next((one for one in reversed(self.text.splitlines()) if one.strip()), "")

    @property
    def running(self) -> bool:
        if self.code is None:
            self._reap(os.WNOHANG)
        return self.code is None

    def wait_for(self, event: str, timeout: float = PATIENCE) -> bool:
        """Return True once the process tells an event that begins so; False if it ends before."""
        seen, end = len(self.told), time.monotonic() + timeout
        while self._open and self.running and time.monotonic() < end:
            self._listen(min(0.1, end - time.monotonic()))
            if any(one.startswith(event) for one in self.told[seen:]):
                return True
        return False

    def _listen(self, seconds: float) -> None:
        ready, *_ = select.select([self._pipe], [], [], max(seconds, 0))
        if not ready:
            return
        data = os.read(self._pipe, 1 << 16)
        if not data:
            self._close()
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.told += [line.decode() for line in lines]

    def wait_until(self, seconds: float) -> None:
        """Wait for some seconds, or for the end of the process."""
        end = time.monotonic() + seconds
        while self._open and self.running and time.monotonic() < end:
            self._listen(min(0.1, end - time.monotonic()))

    def send(self, number: int, group: bool = False) -> None:
        """Send a signal to the process, or also to its workers."""
        if self.code is None:
            (os.killpg if group else os.kill)(self.process, number)

    def kill(self, group: bool = False) -> None:
        self.send(signal.SIGKILL, group)
        self.wait()

    def wait(self, timeout: float = PATIENCE) -> int:
        """Return the exit code; a process that hangs prints where, and is killed."""
        end = time.monotonic() + timeout
        while self.running and time.monotonic() < end:
            self._listen(0.02) if self._open else time.sleep(0.02)
        if self.code is None:
            self.hung = True
            self.send(signal.SIGABRT)  # faulthandler prints the stacks
            time.sleep(0.5)
            self.send(signal.SIGKILL, group=True)
            self._reap(0)
        while self._open and select.select([self._pipe], [], [], 0)[0]:
            self._listen(0)
        assert self.code is not None
        return self.code

    def _reap(self, how: int) -> None:
        process, status = os.waitpid(self.process, how)
        if process:
            self.code = os.waitstatus_to_exitcode(status)

    def end(self) -> None:
        """Kill what is left of the session, such as workers whose process was killed."""
        if self.code is None:
            self.kill(group=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process, signal.SIGKILL)
        self._close()

    def _close(self) -> None:
        """Close the pipe, which commands that are started later would inherit."""
        if self._open:
            self._open = False
            os.close(self._pipe)


class FreshCommand(Command):
    """``swinv2 train`` as a new Python process, which imports everything and tells no phases.

    ``prepare`` is called in the process before Python starts.
    """

    def _start(self, argv: Sequence[str], prepare: Prepare | None, main: Main, told: int) -> int:
        with self.console.open("ab") as out:
            started = subprocess.Popen(
                [sys.executable, "-m", "swinv2_backbone", "train", *argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(_in_the_foreground, prepare),
                pass_fds=[told],  # so that its end is noticed
                env=own_environment(),
            )
        started.returncode = 0  # it is waited for here
        return started.pid

    def wait_for_text(self, text: str, timeout: float = PATIENCE) -> bool:
        """Return True once the console has a text; False if the process ends before."""
        end = time.monotonic() + timeout
        while text not in self.text and time.monotonic() < end and self.running:
            self._listen(0.05)
        return text in self.text


def _in_the_foreground(prepare: Prepare | None) -> None:
    """Let a process take Ctrl-C, which a shell lets its background processes ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if prepare:
        prepare()


def own_environment() -> dict[str, str]:
    """Return the environment of a process that uses the package that this one uses."""
    found = str(Path(swinv2_backbone.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1"}


def _run(
    argv: Sequence[str], console: Path, prepare: Prepare | None, main: Main, told: int
) -> NoReturn:
    """Run a command as Python's own start and end do."""
    os.setsid()
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        signal.signal(number, handler)
    target = os.open(console, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(target, descriptor)
    sys.stdout, sys.stderr = (os.fdopen(d, "w", buffering=1, closefd=False) for d in (1, 2))
    faulthandler.enable(file=2)
    sys.argv = ["swinv2 train", *argv]
    torch.set_num_threads(1)
    code = 1
    try:
        _tell_phases(told)
        if prepare:
            prepare()
        os.write(told, b"start\n")
        main(argv)
        code = 0
    except SystemExit as ended:
        code = _code(ended)
    except BaseException:
        traceback.print_exc()
    _end(code)


def _code(ended: SystemExit) -> int:
    if isinstance(ended.code, str):
        print(ended.code, file=sys.stderr)
        return 1
    return int(ended.code or 0)


def _end(code: int) -> NoReturn:
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # as Python does at its end
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _tell_phases(told: int) -> None:
    for name, (owner, attribute) in PHASES.items():
        around(owner, attribute, _teller(name, told))


def _teller(name: str, told: int) -> Callable:
    def tell(original: Callable, *args: Any, **kwargs: Any) -> Any:
        words = " ".join([name, *(one for one in args if isinstance(one, str))])
        os.write(told, f"{words}\n".encode())
        found = original(*args, **kwargs)
        os.write(told, f"/{words}\n".encode())
        return found

    return tell


def around(owner: Any, attribute: str, function: Callable) -> None:
    """Replace a function or method by ``function(original, *args, **kwargs)``, in this process."""
    original = getattr(owner, attribute)

    def replaced(*args: Any, **kwargs: Any) -> Any:
        return function(original, *args, **kwargs)

    setattr(owner, attribute, replaced)
