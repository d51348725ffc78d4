"""Keys that another project has added to a config: adopted, refused, or named as ignored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from detectron2.config import CfgNode

from swinv2_backbone.d2.config.sections import OPTIONS

# Keys of well-known projects -> the option of ours with the same meaning.
SYNONYMS = {
    "SOLVER.BACKBONE_MULTIPLIER": "optimizer.backbone_lr_factor",
    "SOLVER.POLY_LR_POWER": "schedule.poly_power",
}
# Keys that our trainer supports with one value only, if the schedule is theirs.
POLY_ENDING, POLY = "SOLVER.POLY_LR_CONSTANT_ENDING", "WarmupPolyLR"


def adopt(config: CfgNode) -> list[str]:
    """Set our keys to the values of their synonyms; return an error for each contradiction."""
    faults = []
    for key, name in SYNONYMS.items():
        ours, default = OPTIONS[name].yacs, OPTIONS[name].default
        theirs, value = value_of(config, key, default), value_of(config, ours, default)
        if theirs in (default, value):
            continue
        if value != default:
            faults.append(f"{key} {theirs} and {ours} {value} mean the same: set {ours} {theirs}")
            continue
        *path, last = ours.split(".")
        value_of(config, ".".join(path))[last] = theirs
    ending = value_of(config, POLY_ENDING, 0.0)
    if ending and config.SOLVER.LR_SCHEDULER_NAME == POLY:
        faults.append(f"{POLY_ENDING} {ending} is not supported: set {POLY_ENDING} 0.0")
    return faults


def ignored_keys(config: CfgNode, known: CfgNode) -> dict[str, Any]:
    """Return the keys outside of MODEL that only another project reads, with their values.

    Args:
        known: a config with the keys of Detectron2 and of this package.
    """
    read = {*SYNONYMS, POLY_ENDING, *(key for key, _ in _leaves(known))}
    keys = {key: value for key, value in _leaves(config) if not key.startswith("MODEL.")}
    return {key: value for key, value in keys.items() if key not in read}


def value_of(config: Mapping, key: str, default: Any = None) -> Any:
    """Return the value of a dotted key that may be missing."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return default
        node = node[part]
    return node


def _leaves(node: Mapping, path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
