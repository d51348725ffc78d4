"""JSON files that one command of this package writes for another, read with a remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BLANK = b"\0 \r\n\t"


def read_record(path: Path, remedy: str) -> Any:
    """Read a JSON file that this package or Detectron2 wrote.

    Such files are written whole, so that one that is not has been damaged, or copied in part.

    Args:
        remedy: what the user can do then, such as "delete it, and ...".

    Raises:
        OSError: it cannot be read.
        ValueError: it is not whole; the message has its name and the remedy.
    """
    return parse_record(path.read_bytes(), path, remedy)


def parse_record(content: bytes, path: Path, remedy: str) -> Any:
    """Parse the content of a file, or one of its lines; see :func:`read_record`."""
    try:
        return json.loads(content)
    except ValueError as error:
        fault = str(error) if content.strip(BLANK) else "empty"
        raise ValueError(f"{path} is incomplete or damaged ({fault}): {remedy}") from error
