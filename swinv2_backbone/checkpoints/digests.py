"""The digests that a weight file must have: in its name, beside it, of the Hub, or of the user."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from swinv2_backbone.checkpoints.durable import digest_on_disk
from swinv2_backbone.checkpoints.satlas import SATLAS
from swinv2_backbone.variants import RELEASES

logger = logging.getLogger(__name__)
SHA256 = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{64}(?![0-9a-fA-F])")
MAX_LINKS = 40  # as in Linux

# Name of a published file -> first digits of its SHA-256.
DIGESTS = {
    Path(path).name: Path(path).stem.rpartition("-")[2]
    for path in [
        *(release.path for release in RELEASES.values()),
        *(file.path for file in SATLAS.values()),
    ]
}


def check_digests(path: Path) -> None:
    """Check a file against the digests that its surroundings state.

    These are the SHA-256 in a published name, in ``NAME.sha256`` beside the file, and in the name
    of its blob if it is in the cache of huggingface_hub.

    Raises:
        ValueError: the file has another SHA-256.
    """
    stated = {"its published name": (DIGESTS.get(path.name, ""), path)}
    if (beside := digest_beside(path)).is_file():
        stated[str(beside)] = (_read_digest(beside, path.name), path)
    if blob := hub_blob(path):
        stated["the name of its blob, as the Hub states it"] = (blob.name, blob)
    if not any(expected for expected, _ in stated.values()):
        return
    found = digest_on_disk(path)
    for place, (expected, damaged) in stated.items():
        if not found.startswith(expected):
            it = "it" if damaged == path else str(damaged)
            raise ValueError(
                f"{path} is damaged: its SHA-256 starts with {found[:8]}, not {expected[:8]} as in "
                f"{place}; delete {it} and fetch it again"
            )


def check_stated_digest(path: Path, expected: str) -> None:
    """Check a file against the digest that the user gave, 64 lower-case hexadecimal digits.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file has another SHA-256.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    found = digest_on_disk(path)
    if found != expected:
        raise ValueError(
            f"{path} is not the file that was asked for: its SHA-256 is {found}, not {expected} as "
            "in #sha256=; if that is the publisher's, the file is damaged or another one: "
            "delete it and fetch it again"
        )


def digest_beside(path: Path) -> Path:
    """Return the place of a file's digest, ``NAME.sha256``."""
    return path.with_name(f"{path.name}.sha256")


def hub_blob(path: Path) -> Path | None:
    """Return the blob of a file in the cache of huggingface_hub, if its name is a SHA-256.

    The files there are links to ``blobs/HASH``, where HASH is the SHA-256 of a large file (Git LFS,
    Xet), and a SHA-1 of 40 digits for others. The blob can itself be a link to
    ``blobs/AB/XET_HASH``, whose name is no SHA-256, so links are followed one at a time.
    """
    for _ in range(MAX_LINKS):
        if path.parent.name == "blobs" and SHA256.fullmatch(path.name):
            return path
        if not path.is_symlink():
            return None
        path = Path(os.path.normpath(path.parent.resolve() / os.readlink(path)))
    return None


def _read_digest(file: Path, name: str) -> str:
    """Read the digest of a file from what ``sha256sum`` or another program has written.

    It is that of the line with the name of the file, or the only one; "" if there is no such.
    """
    text = file.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if SHA256.search(line)]
    own = [line for line in lines if name in line] or lines
    if len(own) != 1:
        logger.warning(f"{file} has no SHA-256 of {name}, and is ignored")
        return ""
    return SHA256.search(own[0])[0].lower()  # type: ignore[index]
