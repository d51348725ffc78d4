"""Archives that are downloaded once and used only if their hash is the expected one."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from swinv2_backbone.cli import pip

TIMEOUT_S = 20


class UnreachableError(pip.InstallError):
    """The archive cannot be downloaded from here."""


@contextlib.contextmanager
def download_folder() -> Iterator[Path]:
    """Yield a folder in pip's cache, or a temporary one if pip's cache is off."""
    done = pip.run("-m", "pip", "cache", "dir")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if done.returncode == 0:
            folder = Path(done.stdout.strip(), "swinv2_backbone")
            folder.mkdir(parents=True, exist_ok=True)
        yield folder


def cached(
    file: Path, fetch: Callable[[Path], None], digest: Callable[[Path], str], expected: str
) -> Path:
    """Return the file after checking its hash; fetch it if it does not exist."""
    if not file.exists():
        with tempfile.TemporaryDirectory(dir=file.parent) as temporary:
            new = Path(temporary, file.name)
            fetch(new)
            verify(new, digest(new), expected).replace(file)
    return verify(file, digest(file), expected)


def verify(file: Path, found: str, expected: str) -> Path:
    """Return the file if its hash is the expected one; otherwise raise with its name."""
    if found != expected:
        raise pip.InstallError(
            f"Refused {file}: hash {found}, not {expected}. Delete it, try again."
        )
    return file


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def git_tree(archive: Path) -> str:
    """Return git's hash of the files in an archive.

    Unlike the hash of the archive, it stays the same when GitHub packs the same files differently.
    """
    root: dict[str, Any] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                _add_member(root, tar, member)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        return f"unreadable ({error})"
    return _git_folder(root).hex()


def _add_member(root: dict[str, Any], tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    folder, name = root, ""
    for part in PurePosixPath(member.name).parts[1:]:  # the first is the archive's own folder
        folder, name = folder.setdefault(name, {}) if name else folder, part
    if member.issym():
        folder[name] = (b"120000", _git_hash(b"blob", member.linkname.encode()))
    elif member.isfile() and (content := tar.extractfile(member)) is not None:
        mode = b"100755" if member.mode & 0o100 else b"100644"
        folder[name] = (mode, _git_hash(b"blob", content.read()))


def _git_folder(folder: dict[str, Any]) -> bytes:
    """Return git's hash of a folder, given as name -> (mode, hash of the file) or folder."""
    rows = []
    for name, entry in folder.items():
        is_folder = isinstance(entry, dict)
        mode, digest = (b"40000", _git_folder(entry)) if is_folder else entry
        rows.append((name + "/" * is_folder, b"%s %s\0%s" % (mode, name.encode(), digest)))
    return _git_hash(b"tree", b"".join(row for _, row in sorted(rows)))


def _git_hash(kind: bytes, data: bytes) -> bytes:
    return hashlib.sha1(b"%s %d\0%s" % (kind, len(data), data)).digest()


def download(url: str, file: Path) -> None:
    """Download a URL, through the proxy if the environment names one."""
    if os.environ.get("PIP_NO_INDEX", "0").lower() not in ("", "0", "false", "no", "off"):
        raise UnreachableError(f"{url}: PIP_NO_INDEX is set, and it is not in pip's cache")
    print(f"Fetching {url}", flush=True)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, file.open("wb") as out:
            shutil.copyfileobj(answer, out)
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(f"{url}: {error}") from error
