"""Files that are there whole or not at all, whatever happens while they are written.

A file is written beside its place, flushed to the disk, read back from there, compared with what
was written, and only then renamed.  Until then, and if anything fails, what was there stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

BLOCK = 1 << 20
PARTIAL = ".partial"


class _DigestingFile:
    """A binary file that knows the SHA-256 of what was written to it.

    What writes through it (torch's zip writer, in C++) may replace an error of the disk by one of
    its own, so the first is kept.
    """

    def __init__(self, file):
        self.file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data) -> int:
        try:
            written = self.file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise
        self.digest.update(data)
        return written

    def flush(self) -> None:
        self.file.flush()


@contextlib.contextmanager
def durable(path: Path) -> Iterator[_DigestingFile]:
    """A file to write; it becomes ``path`` at the end of the block.

    Raises:
        OSError: it cannot be written, or what is on the disk is not what was written; then
            ``path`` is as it was.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with partial.open("wb") as raw:
            file = _DigestingFile(raw)
            try:
                yield file
            except Exception as error:
                raise (file.error or error) from None
            raw.flush()
            os.fsync(raw.fileno())
        if digest_on_disk(partial) != file.digest.hexdigest():
            raise OSError("what is on the disk is not what was written")
        _put_in_place(partial, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """As :func:`durable`."""
    with durable(path) as file:
        file.write(text.encode())


def _put_in_place(partial: Path, path: Path) -> None:
    """Rename, so that the new name outlives a power cut."""
    os.replace(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot; the file is in place
            os.fsync(folder)
    finally:
        os.close(folder)


def digest_on_disk(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal, read from the disk if the system allows to ask."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):  # forget what of it is in memory
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def remove_partials(folder: Path) -> None:
    """Remove what killed processes left half written.  Nobody else may be writing there."""
    for partial in folder.glob(f"*.[0-9]*{PARTIAL}"):
        partial.unlink(missing_ok=True)
