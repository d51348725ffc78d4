"""The names of the keys of a YAML config, known before Detectron2 is imported, which takes seconds.

A misspelled key is reported at once.  The values, and the keys of LazyConfigs and of other
projects, are checked when the config is loaded.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Path of a node -> the keys that this package adds to it; a test compares them with the options.
OWN = {
    "": "IMPORTS",
    "DATALOADER": "MAX_BROKEN_IMAGES SAMPLES_PICTURE",
    "DATASETS": "UNSAFE_PROPOSAL_FILES",
    "DATASETS.CUSTOM": "CACHE CLASSES CROWDS HOLES IMAGES_OUTSIDE NAMES",
    "DATASETS.CUSTOM.TEST": "FORMAT IMAGES JSON LABELS NAME",
    "DATASETS.CUSTOM.TRAIN": "FORMAT IMAGES JSON LABELS NAME",
    "INPUT": "COLOR_AUG_SSD DISPLAY_BANDS MASK_TARGETS",
    "INPUT.CROP": "SINGLE_CATEGORY_MAX_AREA",
    "INPUT.LSJ": "ENABLED MAX_SCALE MIN_SCALE SIZE",
    "MODEL.MASK_TRANSFORMER": "CHANNELS DECODER_LAYERS ENCODER_LAYERS NUM_HEADS NUM_QUERIES POINTS",
    "MODEL.SWINV2": (
        "ACTIVATION_CHECKPOINTING DEPTHS DROP_PATH_RATE EMBED_DIM FROZEN_STAGES KERNEL "
        "MASK_PADDING NUM_HEADS OUT_FEATURES PARTIAL_WEIGHTS PRETRAINED_WINDOW_SIZES "
        "SMALL_MAP_RULE STEM VARIANT WINDOW_SIZE"
    ),
    "MODEL.UPERNET": "AUX_CONVS_DIM AUX_IN_FEATURE AUX_LOSS_WEIGHT DROPOUT POOL_SCALES",
    "SOLVER": (
        "ACCUMULATE BACKBONE_LR_FACTOR CHECKPOINTS_KEPT LAYER_DECAY LOG_PERIOD "
        "MAX_NONFINITE_STEPS OPTIMIZER POLY_POWER SHARDING TIME_LIMIT WEIGHT_DECAY_EMBED"
    ),
    "SOLVER.AMP": "DTYPE",
    "SOLVER.DDP": "BROADCAST_BUFFERS FIND_UNUSED_PARAMETERS",
    "SOLVER.EMA": "DECAY ENABLED",
    "TEST": "BEST_METRIC",
    "TEST.EARLY_STOPPING": "METRIC PATIENCE",
    "TRACKING": "NAME PROJECT TRACKERS",
}


def wrong_keys(keys: Iterable[str]) -> list[str]:
    """Return a message for each key that neither Detectron2 nor this package has.

    The keys of Detectron2 are read from the source of its defaults; none is wrong without it.
    """
    package = importlib.util.find_spec("detectron2")
    if package is None or package.origin is None:
        return []
    try:
        source = Path(package.origin).with_name("config").joinpath("defaults.py").read_text("utf-8")
    except OSError:
        return []
    tree = _tree([*_assigned(source), *own_keys()])
    return [fault for key in keys if (fault := fault_of(key, tree))]


def own_keys() -> list[str]:
    """Return the keys that this package adds to a config."""
    return [f"{path}.{key}".lstrip(".") for path, names in OWN.items() for key in names.split()]


def fault_of(key: str, config: Mapping[str, Any]) -> str:
    """Return the message for a key that a config does not have; empty if it has it."""
    node: Any = config
    parts = key.split(".")
    for depth, part in enumerate(parts, 1):
        if not isinstance(node, Mapping) or part not in node:
            known = list(node) if isinstance(node, Mapping) else []
            return no_such_key(".".join(parts[:depth]), known)
        node = node[part]
    return ""


def no_such_key(key: str, known: Sequence[str]) -> str:
    """Return the message for a key that does not exist, with the closest existing key."""
    path, _, last = key.rpartition(".")
    near = difflib.get_close_matches(last, known, n=1)
    near = near or difflib.get_close_matches(last.upper(), known, n=1)
    if near:
        return f"{key}: did you mean {near[0]}?"
    return f"{key}: no such key; {path or 'the config'} has {', '.join(map(str, known)) or 'none'}"


def _assigned(source: str) -> list[str]:
    """Return the keys that are set by ``_C.A.B = ...``, and by ``_C.A = CN({"B": ...})``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Assign):
            continue
        name = ast.unparse(node.targets[0])
        if name.startswith("_C."):
            within = [each for each in ast.walk(node.value) if isinstance(each, ast.Dict)]
            names = [ast.literal_eval(key) for each in within for key in each.keys if key]
            found += [f"{name[3:]}.{key}" for key in names] or [name[3:]]
    return found


def _tree(keys: Iterable[str]) -> dict[str, Any]:
    """Return the keys as nested dictionaries; those of a key that has a value are empty."""
    tree: dict[str, Any] = {}
    for key in keys:
        node = tree
        for part in key.split("."):
            node = node.setdefault(part, {})
    return tree
