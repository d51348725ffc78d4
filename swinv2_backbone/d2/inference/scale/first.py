"""Files that several processes may create at once: the first to finish wins, the others read it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from swinv2_backbone.checkpoints.durable import PARTIAL, write_text


def first_text(path: Path, text: str) -> str:
    """Create a text file, and its folder, unless it exists, and return the text that it has now.

    It appears whole. Of several processes, one creates it, and all get the same text.

    Raises:
        OSError: it cannot be written or read.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        mine = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(8)}{PARTIAL}")
        write_text(mine, text)
        try:
            os.link(mine, path)  # unlike a renaming, it never replaces a file
        except OSError:  # it exists by now, or the file system has no links
            if not path.exists():
                mine.rename(path)
        finally:
            mine.unlink(missing_ok=True)
    return path.read_text(encoding="utf-8")
