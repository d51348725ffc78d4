"""What must hold after a failure: whole files, the same weights, and sentences on the console."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from swinv2_backbone.checkpoints.files import read_file
from swinv2_backbone.d2.engine.metrics import read_lines
from swinv2_backbone.d2.engine.trainer import load_plan

STARTED = re.compile(r"Starting training from iteration (\d+)")
FINAL = "model_final"
DETECTRON2_WRITES = "coco_instances_results.json"  # anew in each evaluation; nothing reads it


def has_traceback(text: str) -> bool:
    return "Traceback (most recent call last)" in text or "--- Logging error ---" in text


def started_from(text: str) -> int | None:
    """Return the first iteration of a training that its console names."""
    found = STARTED.findall(text)
    return int(found[-1]) if found else None


def iteration_of(name: str, iterations: int) -> int:
    """Return the iteration after which a checkpoint was saved."""
    return iterations - 1 if name.startswith(FINAL) else int(re.findall(r"\d+", name)[0])


def different(one: Path, other: Path, name: str = f"{FINAL}.pth") -> str:
    """Name the first entries in which two checkpoints differ; "" if they are bitwise equal.

    Weights, averages, optimizer, random generators and position in the data are compared.
    """
    if not (other / name).is_file():
        return f"no {name}"
    contents = (read_file(folder / name, extras=False).value for folder in (one, other))
    return ", ".join([place for place, _ in zip(differences(*contents), range(3))])


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Yield the places at which nested values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            yield f"{place} ({len(one)} and {len(other)} keys)"
        for key in one.keys() & other.keys():
            yield from differences(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            yield f"{place} ({len(one)} and {len(other)} entries)"
        for number, pair in enumerate(zip(one, other)):
            yield from differences(*pair, f"{place}.{number}")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or not torch.equal(one, other):
            yield place
    elif one != other:
        yield place


def unreadable(folder: Path) -> list[str]:
    """Name the files of a training that cannot be read, also while it is not finished."""
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            _read(path)
        except (ValueError, OSError) as error:
            found.append(f"{path.relative_to(folder)}: {str(error).splitlines()[0]}")
    return found


def repeated_metrics(folder: Path) -> list[str]:
    """Name the metrics that a training has written twice for an iteration."""
    found = Counter(
        f"{name} of iteration {values['iteration']}"
        for _, values in read_lines(folder / "metrics.json")
        for name in values or ()
        if values and name != "iteration"
    )
    return [name for name, count in found.items() if count > 1]


def _read(path: Path) -> None:
    if path.name == "config.yaml":
        load_plan(str(path))
    elif path.name.startswith("metrics"):
        *lines, last = path.read_text(encoding="utf-8").split("\n")  # the last one may be torn
        for line in lines:
            json.loads(line)
    elif path.suffix == ".json" and path.name != DETECTRON2_WRITES:
        json.loads(path.read_text(encoding="utf-8"))
    elif path.name == "last_checkpoint":
        name = path.read_text(encoding="utf-8")
        if not (path.parent / name).is_file():
            raise ValueError(f"names {name!r}")
    elif path.suffix == ".pth" and path.name.startswith("model_"):
        read_file(path, extras=False)
