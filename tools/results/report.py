"""Tables of the results, for the marked places of docs/RESULTS.md, and their numbers as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from results.backbones import BACKBONES
from results.plan import trained
from results.sets import BY_NAME

KEPT = ("bbox_ap", "segm_ap", "iterations", "peak_mb", "parameters")
COLUMNS = (
    *("backbone", "seeds", "box AP", "mask AP", "iterations"),
    "peak memory, MB",
)


def compact(results: Mapping[str, dict], sets: Sequence[str], seeds: Sequence[int]) -> dict:
    """Return the numbers of every set, backbone and seed that is done."""
    found: dict[str, Any] = {}
    for name in sets:
        for backbone in BACKBONES:
            runs = [results.get(trained(name, backbone, seed)) for seed in seeds]
            own = [_rounded(run) for run in runs if run is not None]
            if own:
                found.setdefault(name, {})[backbone] = own
    return found


def table(name: str, numbers: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return a set's table: means and standard deviations over the seeds."""
    own = BY_NAME[name]
    lines = [
        f"{own.title[0].upper()}{own.title[1:]} ({own.licence}): {own.url}",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    for backbone, runs in numbers.items():
        cells = [
            str(len(runs)),
            _spread(runs, "bbox_ap", 1),
            _spread(runs, "segm_ap", 1) if own.masks else "",
            _spread(runs, "iterations", 0),
            _spread(runs, "peak_mb", 0),
        ]
        lines.append(f"| {backbone} | {' | '.join(cells)} |")
    return "\n".join(lines)


def fill_in(document: Path, numbers: Mapping[str, Any]) -> str:
    """Return the text of a document with every set's table between its marks."""
    text = document.read_text(encoding="utf-8")
    for name, own in numbers.items():
        mark = re.compile(rf"(<!-- results: {name} -->\n).*?(<!-- end -->)", re.S)
        if not mark.search(text):
            raise ValueError(f"{document} has no marks '<!-- results: {name} -->', '<!-- end -->'")
        text = mark.sub(
            lambda found, own=own, name=name: (  # type: ignore[misc]
                f"{found[1]}{table(name, own)}\n{found[2]}"
            ),
            text,
        )
    return text


def read_numbers(file: Path) -> dict[str, Any]:
    """Return the numbers of an earlier report, or none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def as_json(numbers: Mapping[str, Any]) -> str:
    return json.dumps(numbers, indent=1, sort_keys=True) + "\n"


def _rounded(run: Mapping[str, float]) -> dict[str, float]:
    return {key: round(run[key], 2) for key in KEPT if key in run}


def _spread(runs: Sequence[Mapping[str, float]], key: str, digits: int) -> str:
    values = [run[key] for run in runs]
    middle = f"{mean(values):,.{digits}f}"
    if len(values) < 2 or len(set(values)) == 1:
        return middle
    return f"{middle} ± {stdev(values):,.{digits}f}"
