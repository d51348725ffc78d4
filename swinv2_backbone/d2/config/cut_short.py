"""A config.yaml that a training wrote, and that was cut short since.

What is left of it is often a valid config, with defaults in place of the lost values.  Detectron2
writes all keys in alphabetical order, and a line break behind the last one.
"""

from __future__ import annotations

import re
from pathlib import Path

from detectron2.config import get_cfg

from swinv2_backbone.checkpoints.records import BLANK
from swinv2_backbone.d2.config.rules import ConfigError

FIRST, LAST = "CUDNN_BENCHMARK", "VIS_PERIOD"  # keys of Detectron2 in every such file
SECTION = "DATALOADER"  # the second key; nobody writes all of its keys by hand
LAZY_KEY = "dataloader"
OURS, LAZY_LAST = "best_metric", "time_limit"  # keys of train since version 0.1; the second ends it


def refuse_cut(config_file: str) -> None:
    """Raise ConfigError for a config that is empty, or the first part of one that was written."""
    path = Path(config_file)
    if not path.is_file():
        return
    content = path.read_bytes()
    if not content.strip(BLANK):
        raise ConfigError(
            [
                f"{config_file} is empty; a process that was killed while it wrote the file may "
                "have left it so: give the config that the training began with"
            ]
        )
    if last := _missing_end(content.decode(errors="replace"), path.suffix):
        raise ConfigError(
            [
                f"{config_file} is incomplete: its end is missing, as after an interrupted copy. "
                "Copy it again, or give the config that the training began with; if it is "
                f"complete, add {last} at its end"
            ]
        )


def _missing_end(text: str, suffix: str) -> str:
    """Return the key that a written config ends with, if it is missing; "" otherwise."""
    keys = _keys(text)
    if keys[:2] == [FIRST, SECTION] and set(get_cfg()[SECTION]) <= set(_keys(text, "  ")):
        return "" if re.search(rf"^{LAST}: \d+\s*\Z", text, re.MULTILINE) else LAST
    if suffix == ".py" or LAZY_KEY not in keys:
        return ""
    inside = _keys(text[text.rfind("\ntrain:") :], "  ") if "train" in keys else []
    if keys != sorted(keys) or inside != sorted(inside):  # written by hand
        return ""
    return "" if _ends_as_written(text, inside) else f"train.{LAZY_LAST}"


def _ends_as_written(text: str, inside: list[str]) -> bool:
    """Return False for a LazyConfig of this package whose section ``train`` does not end."""
    if not inside:
        return "swinv2_backbone" not in text
    if OURS not in inside:  # of Detectron2's own trainer, unless it was cut before that key
        return inside[-1] > OURS
    return LAZY_LAST in inside and text.endswith("\n")


def _keys(text: str, indent: str = "") -> list[str]:
    return re.findall(rf"^{indent}(\w+):", text, re.MULTILINE)
