"""Digests of image files, kept between runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from swinv2_backbone.checkpoints.durable import write_text

FILE = "digests.json"
KEPT_FROM = 100  # new digests; fewer are faster to compute again than to read


class KnownDigest(NamedTuple):
    """The digest of a file, valid while its size in bytes and its time of change (ns) are these."""

    size: int
    modified: int
    digest: str


def load_digests(folder: Path | None) -> dict[str, KnownDigest]:
    """Return the digests kept in a folder, by path; none if they are missing or damaged."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8")) if folder else {}
        return {str(path): KnownDigest(*values) for path, values in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def save_digests(digests: Mapping[str, KnownDigest], folder: Path | None, before: int) -> None:
    """Keep digests in a folder, if there are many more than the ``before`` that were loaded."""
    if folder is None or len(digests) - before < KEPT_FROM:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / FILE, json.dumps(digests))
    except OSError:  # the folder of an earlier check, which has said so
        return
