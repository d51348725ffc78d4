"""Writing files that exist whole or not at all, even if the writing process is killed.

A file is written under a temporary name, flushed to the disk, read back, compared with the written
bytes, and only then renamed.  Until then, and if anything fails, the earlier file stays.  For
libraries that write to a path of their own, :func:`unfinished` does the same without the reading.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

BLOCK = 1 << 20
PARTIAL = ".partial"
OPEN_ELSEWHERE = 10.0  # seconds for which a file that is to be replaced may be open elsewhere


class _DigestingFile:
    """A binary file that computes the SHA-256 of the bytes written to it.

    It keeps the first error, because torch's zip writer (in C++) replaces it with one of its own.
    That includes errors of signal handlers, such as Ctrl-C.
    """

    def __init__(self, file: IO[bytes]):
        self.file, self.digest = file, hashlib.sha256()
        self.error: BaseException | None = None

    def write(self, data: bytes) -> int:
        try:
            written = self.file.write(data)
            self.digest.update(data)
        except BaseException as error:
            self.error = self.error or error
            raise
        return written

    def flush(self) -> None:
        self.file.flush()


@contextlib.contextmanager
def durable(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that becomes ``path`` at the end of the block.

    The file has only the methods ``write`` and ``flush``.

    Raises:
        OSError: the file cannot be written, or the file on disk differs from the bytes
            written; ``path`` is then unchanged.
    """
    partial = _partial(path)
    try:
        with partial.open("wb") as raw:
            file = _DigestingFile(raw)
            try:
                yield cast(IO[bytes], file)
            except Exception as error:
                raise (file.error or error) from None
            raw.flush()
            os.fsync(raw.fileno())
        if digest_on_disk(partial) != file.digest.hexdigest():
            raise OSError("the file on disk differs from the bytes written")
        _put_in_place(partial, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file; see :func:`durable`."""
    with durable(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Yield where a library writes a file or folder that becomes ``path`` at the end of the block.

    It has the name of ``path``, in a temporary folder beside it. Files that the library writes next
    to it are moved next to ``path``, before it. Then an earlier ``path`` is removed first, so that
    it never has the companions of the new one.

    Raises:
        OSError: nothing was written, or it cannot be moved; an earlier ``path`` without
            companions is then unchanged.
    """
    folder = _partial(path)
    try:
        folder.mkdir()
        yield folder / path.name
        if not (folder / path.name).exists():
            raise OSError("nothing was written")
        parts = sorted(folder.iterdir(), key=lambda part: part.name == path.name)
        for part in parts:
            _flush(part)
        if len(parts) > 1 and not path.is_dir():
            path.unlink(missing_ok=True)
        for part in parts:
            _put_in_place(part, path.with_name(part.name))
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _partial(path: Path) -> Path:
    # Processes of two machines, or containers, that share the folder can have the same number.
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")


def _put_in_place(partial: Path, path: Path) -> None:
    """Rename a file or folder so that the new name survives a power failure."""
    old = partial.with_name(f"{partial.name}.old")  # removed with the partial
    if partial.is_dir() and path.is_dir():  # which cannot be replaced in one step
        os.replace(path, old)
    try:
        _replace(partial, path)
    except BaseException:
        if old.is_dir():
            os.replace(old, path)
        raise
    _flush_folder(path.parent)


def _replace(partial: Path, path: Path) -> None:
    """Rename a file; wait for a program that has the earlier one open.

    Windows and some network file systems refuse to replace such a file.
    """
    end = time.monotonic() + OPEN_ELSEWHERE
    while True:
        try:
            os.replace(partial, path)
            return
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EBUSY) or time.monotonic() > end:
                raise
        time.sleep(OPEN_ELSEWHERE / 100)


def _flush(path: Path) -> None:
    """Flush a file, or all files of a folder, to the disk."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_dir():
            _flush_folder(file)
            continue
        with file.open("r+b") as opened:  # Windows flushes no file that is open for reading
            os.fsync(opened.fileno())
    if path.is_dir():
        _flush_folder(path)


def _flush_folder(path: Path) -> None:
    with contextlib.suppress(OSError):  # Windows opens no folder, and some file systems sync none
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def digest_on_disk(path: Path) -> str:
    """Return the SHA-256 of a file, read from the disk where the system can drop its cache."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):  # drop the file from the page cache
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def remove_partials(folder: Path) -> None:
    """Remove what killed processes left unfinished; no other process may write to the folder."""
    for partial in folder.glob(f"*.[0-9]*{PARTIAL}"):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
