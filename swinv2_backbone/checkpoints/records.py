"""JSON files that one command of this package writes for another, read with a remedy."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)
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


def read_record_or(default: Any, path: Path, remedy: str) -> Any:
    """Read a record that can be done without; ``default`` if there is none, or it is damaged.

    Args:
        remedy: what happens without it, for a warning.
    """
    if not path.is_file():
        return default
    try:
        return read_record(path, remedy)
    except (OSError, ValueError) as error:
        logger.warning(str(error))
        return default


def parse_record(content: bytes, path: Path, remedy: str) -> Any:
    """Parse the content of a file, or one of its lines; see :func:`read_record`."""
    try:
        return json.loads(content)
    except ValueError as error:
        fault = str(error) if content.strip(BLANK) else "empty"
        raise ValueError(f"{path} is incomplete or damaged ({fault}): {remedy}") from error
