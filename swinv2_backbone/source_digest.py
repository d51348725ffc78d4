"""Sources of weights with a digest, ``SOURCE#sha256=HEX``, as in pip's addresses."""

from __future__ import annotations

import os
import re

STATED = re.compile(r"sha256=([0-9a-fA-F]{64})")
# The start of any hash, so that a misspelt one is an error and not left unchecked.
HASH = re.compile(r"(?:^|&)(?:md5|sha[-_]?\d|blake)|^[0-9a-f]{32,}$", re.IGNORECASE)


def split_digest(source: str) -> tuple[str, str | None]:
    """Return a source without its digest, and the digest in lower case, or None without one.

    The name of an existing file or folder is returned unchanged, whatever it contains.

    Raises:
        ValueError: the digest is malformed, or of another algorithm than SHA-256.
    """
    place, mark, fragment = source.rpartition("#")
    if not mark or not HASH.search(fragment) or os.path.exists(os.path.expanduser(source)):
        return source, None
    stated = STATED.fullmatch(fragment)
    if not place or not stated:
        raise ValueError(
            f"{source!r}: a digest is written SOURCE#sha256=HEX, where HEX is the SHA-256 of the "
            f"file with all 64 hexadecimal digits, got {mark + fragment!r}"
        )
    return place, stated[1].lower()
