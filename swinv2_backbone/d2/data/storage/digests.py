"""Digests of image files, kept between runs."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.checkpoints.records import read_record

FILE = "digests.json"
KEPT_FROM = 100  # new digests; fewer are faster to compute again than to read
logger = logging.getLogger(__name__)


class KnownDigest(NamedTuple):
    """The digest of a file, valid while its size in bytes and its time of change (ns) are these."""

    size: int
    modified: int
    digest: str


def load_digests(folder: Path | None) -> dict[str, KnownDigest]:
    """Return the digests kept in a folder, by path; none if they are missing or damaged."""
    if folder is None or not (folder / FILE).exists():
        return {}
    try:
        content = read_record(folder / FILE, "the digests of the images are computed anew")
        return {str(path): KnownDigest(*values) for path, values in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        logger.warning(f"digests of images cannot be read: {error}")
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
