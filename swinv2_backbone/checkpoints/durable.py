"""Writing files that exist whole or not at all, even if the writing process is killed.

A file is written under a temporary name, flushed to the disk, read back, compared with the written
bytes, and only then renamed.  Until then, and if anything fails, the earlier file stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

BLOCK = 1 << 20
PARTIAL = ".partial"


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
    # Processes of two machines, or containers, that share the folder can have the same number.
    token = f"{os.getpid()}-{secrets.token_hex(4)}"
    partial = path.with_name(f"{path.name}.{token}{PARTIAL}")
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


def _put_in_place(partial: Path, path: Path) -> None:
    """Rename a file so that the new name survives a power failure."""
    os.replace(partial, path)
    with contextlib.suppress(OSError):  # Windows opens no folder, and some file systems sync none
        folder = os.open(path.parent, os.O_RDONLY)
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
    """Remove the partial files of killed processes; no other process may write to the folder."""
    for partial in folder.glob(f"*.[0-9]*{PARTIAL}"):
        partial.unlink(missing_ok=True)
