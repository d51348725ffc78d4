"""Images that are in both the training and the test set, which make the metrics too good.

Files are the same if they have the same size in bytes and the same digest. Only files whose size
occurs in both sets are read, and those of equal size at first only in part: uncompressed images of
a set all have one size.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, MutableMapping, Sequence
from typing import NamedTuple

from swinv2_backbone.d2.data.storage.digests import KnownDigest
from swinv2_backbone.d2.data.validation.report import EXAMPLES, counted, for_each

SAMPLE = 4096  # bytes read in the middle of a file
BLOCK = 1 << 20  # bytes read at once for a digest


class _File(NamedTuple):
    """A file, with its device and inode, size in bytes and time of change (ns)."""

    path: str
    place: tuple[int, int]
    size: int
    modified: int


def images_in_both(
    train: Iterable[str],
    test: Iterable[str],
    known: MutableMapping[str, KnownDigest] | None = None,
) -> list[tuple[str, str]]:
    """Find the files of ``test`` whose content is also in ``train``.

    Args:
        train, test: paths of files; those that cannot be read are skipped.
        known: digests by path, to be kept between calls. Digests of unchanged files are used, and
            those of other files that had to be read are added.

    Returns:
        For each such file of ``test``, in the order given, its path and the first path in
        ``train`` of the same content.
    """
    digests = {} if known is None else known
    trained, tested = _files(train), _files(test)
    place_of = {file.place: file.path for file in reversed(trained)}
    pairs = {file.path: place_of[file.place] for file in tested if file.place in place_of}
    sets = [trained, [file for file in tested if file.path not in pairs]]
    sets = _alike(sets, [[file.size for file in part] for part in sets])
    sets = _alike(sets, [for_each(_sample, part, "images of equal sizes") for part in sets])
    one, other = (
        for_each(lambda file: (_digest(file, digests), file.path), part, "images compared")
        for part in sets
    )
    first = {digest: path for digest, path in reversed(one) if digest}
    pairs |= {path: first[digest] for digest, path in other if digest in first}
    return [(file.path, pairs[file.path]) for file in tested if file.path in pairs]


def overlap_warning(
    pairs: Sequence[tuple[str, str]], test: str, train: str, num_test: int, num_train: int
) -> str:
    """Return a warning about images that are in both sets; "" if there are none.

    Args:
        pairs: result of :func:`images_in_both`.
        test, train: names of the sets.
        num_test, num_train: their numbers of images.
    """
    if not pairs:
        return ""
    if len(pairs) < num_test:
        shown = ", ".join(f"{one} (is {other})" for one, other in pairs[:EXAMPLES])
        more = ", ..." if len(pairs) > EXAMPLES else ""
        return (
            f"{len(pairs)} of the {num_test} images of the test set {test} are also in the "
            f"training set {train}, so that its metrics will be too good; remove them from one "
            f"of the two: {shown}{more}"
        )
    if len({other for _, other in pairs}) == num_train:
        return (
            f"The test set {test} is the training set {train}: both have the same "
            f"{counted(num_test, 'image')}. Its metrics will show how well the model remembers "
            "them, not how it works on new images."
        )
    return (
        f"All images ({num_test}) of the test set {test} are also in the training set {train}. Its "
        "metrics will show how well the model remembers them, not how it works on new images."
    )


def _files(paths: Iterable[str]) -> list[_File]:
    unique = list(dict.fromkeys(paths))
    return [file for file in for_each(_file, unique, "file sizes") if file is not None]


def _file(path: str) -> _File | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return _File(path, (found.st_dev, found.st_ino), found.st_size, found.st_mtime_ns)


def _alike(sets: list[list[_File]], keys: list[list]) -> list[list[_File]]:
    """Return the files of each set whose key also occurs in the other one; None matches nothing."""
    common = (set(keys[0]) & set(keys[1])) - {None}
    return [
        [file for file, key in zip(files, own) if key in common] for files, own in zip(sets, keys)
    ]


def _sample(file: _File) -> tuple[int, bytes] | None:
    """Return the size and the digest of a part of a file; None if it cannot be read."""
    try:
        with open(file.path, "rb") as opened:
            opened.seek(file.size // 2)
            return file.size, hashlib.blake2b(opened.read(SAMPLE)).digest()
    except OSError:
        return None


def _digest(file: _File, known: MutableMapping[str, KnownDigest]) -> str | None:
    """Return the digest of a whole file, which may be known; None if it cannot be read."""
    stored = known.get(file.path)
    if stored is not None and stored[:2] == (file.size, file.modified):
        return stored.digest
    digest = hashlib.blake2b(digest_size=20)
    try:
        with open(file.path, "rb") as opened:
            while block := opened.read(BLOCK):
                digest.update(block)
    except OSError:
        return None
    known[file.path] = KnownDigest(file.size, file.modified, digest.hexdigest())
    return digest.hexdigest()
