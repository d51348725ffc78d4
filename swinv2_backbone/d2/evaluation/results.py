"""The results of an evaluation as a JSON file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from swinv2_backbone.checkpoints.durable import write_text

RESULTS = "results.json"


def write_results(results: Mapping, folder: str | os.PathLike) -> Path:
    """Write the results of an evaluation as JSON; NaN and infinity become null."""
    path = Path(folder, RESULTS)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(_plain(results), indent=1) + "\n")
    return path


def _plain(value: Mapping | float) -> dict | float | None:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return float(value) if math.isfinite(value) else None
