"""The lock of an output folder, so that two trainings never write to the same one.

The lock is a file with its owner's place, process and a counter that the owner raises while it
runs. It needs only that a file is created exclusively and that an opened file is up to date, which
local file systems and NFS guarantee. Clocks are not compared.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from detectron2.utils import comm

from swinv2_backbone.d2.engine.shared_errors import raise_in_all_processes

logger = logging.getLogger(__name__)
FILE = "training.lock"
BEAT = 10.0  # seconds between two beats of an owner
SILENCE = 300.0  # seconds without a beat after which an owner on another machine has ended
PATIENCE = 30.0  # seconds in which an owner on this machine may end: a last iteration, a checkpoint
Owner = dict[str, Any]


class FolderInUseError(ValueError):
    """Another training has the output folder."""


@contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Hold the lock of an output folder; the main process holds it for all of a training.

    A lock whose owner has ended is taken over, which is logged. For an owner on another machine, in
    another container or of another user, that cannot be determined: wait for its beat.

    Raises:
        FolderInUseError: another training has the folder; raised in all processes.
        OSError: the lock cannot be written; raised in all processes.
    """
    lock = FolderLock(Path(folder))
    failure: Exception | None = None
    if comm.is_main_process():
        try:
            lock.acquire()
        except FolderInUseError as error:
            failure = error
        except OSError as error:
            failure = OSError(str(error))
    raise_in_all_processes(failure)
    try:
        yield
    finally:
        lock.release()


def require_lock(folder: str | os.PathLike) -> None:
    """Raise OSError if this process had the lock of a folder and another has taken it over.

    A process that was stopped for a long time, such as by SIGSTOP, does not notice it by itself.
    """
    if lock := FolderLock.held.get(Path(folder).absolute()):
        lock.require()


def require_lock_in_all_processes(folder: str | os.PathLike) -> None:
    """Call :func:`require_lock`; its error is raised in all processes of a training."""
    failure = None
    try:
        require_lock(folder)
    except OSError as error:
        failure = OSError(str(error))
    raise_in_all_processes(failure)


class FolderLock:
    """The lock of one folder, which one process can hold."""

    held: dict[Path, FolderLock] = {}  # those that this process holds

    def __init__(self, folder: Path):
        self.path = folder.absolute() / FILE
        self._token, self._ended = secrets.token_hex(8), threading.Event()
        self._process, self._access = os.getpid(), threading.Lock()

    def acquire(self) -> None:
        """Create the lock, or take it over from an owner that has ended.

        Raises:
            FolderInUseError: the owner is running.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while not self._create():
            content = _read(self.path)
            if content is None:  # released meanwhile
                continue
            owner = _owner(content)
            if self._is_running(owner, content):
                raise FolderInUseError(
                    f"the output folder {self.path.parent} is in use by {_name(owner)}: choose "
                    "another OUTPUT_DIR (train.output_dir), or wait for its end"
                )
            if self.path.exists():
                logger.warning(f"{self.path}: taken over from {_name(owner)}, which has ended")
                self._remove(content)
        self.held[self.path.parent] = self
        atexit.register(self.release)
        threading.Thread(target=self._beat, name="folder lock", daemon=True).start()

    def require(self) -> None:
        """Raise OSError if another process has taken the lock over, or the folder is gone.

        A folder that is gone, such as one on a network that fails, has some time to come back.
        """
        with self._access:
            for _ in _polls(PATIENCE):
                with suppress(OSError):  # such as a stale handle of NFS
                    if _read(self.path) is not None:
                        break
            self._require()

    def _require(self) -> None:
        content = _read(self.path)
        if content is None:
            raise OSError(
                f"{self.path} or its folder was removed, so that another training may use it: "
                "nothing more is written"
            )
        if _owner(content).get("token") != self._token:
            raise OSError(
                f"{self.path.parent} was taken over by another training while this process was "
                "stopped: nothing more is written"
            )

    def release(self) -> None:
        """Remove the lock if this process holds it; a forked process does not."""
        if self.held.get(self.path.parent) is not self or os.getpid() != self._process:
            return
        self._ended.set()
        del self.held[self.path.parent]
        atexit.unregister(self.release)
        with suppress(OSError), self._access:
            self._require()
            self.path.unlink()

    def _create(self) -> bool:
        try:
            file = self.path.open("x", encoding="utf-8")
        except FileExistsError:
            return False
        try:
            with file:
                file.write(self._content(0))
        except OSError as error:  # such as a full disk
            self.path.unlink()
            raise OSError(f"{self.path} cannot be written: {error}") from error
        return True

    def _content(self, beat: int) -> str:
        owner = {"place": _place(), "host": platform.node(), "process": self._process}
        owner |= {"started": _start_of(self._process), "token": self._token}
        return json.dumps(owner | {"beat": f"{beat:012d}"})  # always of the same length

    def _beat(self) -> None:
        beat = 0
        while not self._ended.wait(BEAT):
            beat += 1
            with suppress(OSError), self._access:
                self._require()
                # Overwritten and not cut, so that a full disk cannot leave an empty lock.
                with self.path.open("r+", encoding="utf-8") as file:
                    file.write(self._content(beat))

    def _is_running(self, owner: Owner, content: str) -> bool:
        if owner.get("place") == _place():
            return self._stays(owner)
        logger.warning(f"{self.path}: waiting {SILENCE:.0f} s for a beat of {_name(owner)}")
        for _ in _polls(SILENCE):
            if _read(self.path) != content:  # a beat, a release, or another owner
                return _read(self.path) is not None
        return False

    def _stays(self, owner: Owner) -> bool:
        """Return True if a process on this machine neither ends nor releases the lock soon."""
        if owner["process"] == self._process:
            return True
        for _ in _polls(PATIENCE):
            if _start_of(owner["process"]) != owner["started"] or not self.path.exists():
                return False
        return True

    def _remove(self, content: str) -> None:
        """Remove a lock with this content; of several processes that try, one succeeds."""
        aside = self.path.with_name(f"{FILE}.{self._token}")
        with suppress(FileNotFoundError):
            os.replace(self.path, aside)
            if _read(aside) != content:  # another process was faster, and this is its new lock
                with suppress(OSError):
                    os.link(aside, self.path)
            aside.unlink()


def _polls(seconds: float) -> Iterator[None]:
    """Yield at once and then about every second, for some time."""
    end = time.monotonic() + seconds
    yield
    while time.monotonic() < end:
        time.sleep(min(1.0, seconds / 10))
        yield


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _owner(content: str) -> Owner:
    """Return the owner in a lock; an empty one for a lock that was cut."""
    with suppress(ValueError):
        owner = json.loads(content)
        if isinstance(owner, dict):
            return owner
    return {}


def _name(owner: Owner) -> str:
    return f"process {owner.get('process', '(unknown)')} on {owner.get('host', 'a machine')}"


def _place() -> str:
    """Return an identifier of machine, boot, container and user, as far as processes see others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')} {os.getuid()}"
    except OSError:
        return secrets.token_hex(8)  # of this process alone: others are known by their beats


def _start_of(process: int) -> str | None:
    """Return when a process has started, in the unit of Linux; None if it is not running.

    A number alone is not enough, because another process may have it by now.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    state, *rest = fields.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]
