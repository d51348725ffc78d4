"""A config.yaml that a training wrote, and that was cut short since.

What is left of it is often a valid config, with defaults in place of the lost values.  Detectron2
writes all keys in alphabetical order, and a line break behind the last one.
"""

from __future__ import annotations

import re
from pathlib import Path

from detectron2.config import get_cfg

from swinv2_backbone.d2.config.rules import ConfigError

FIRST, LAST = "CUDNN_BENCHMARK", "VIS_PERIOD"  # keys of Detectron2 in every such file
SECTION = "DATALOADER"  # the second key; nobody writes all of its keys by hand
LAZY_KEY, LAZY_LAST = "dataloader", "time_limit"  # the last is a key of train since version 0.1


def refuse_cut(config_file: str) -> None:
    """Raise ConfigError for a config that is empty, or the first part of one that was written."""
    path = Path(config_file)
    if not path.is_file():
        return
    content = path.read_bytes()
    if not content.strip(b"\0 \r\n\t"):
        raise ConfigError(
            [
                f"{config_file} is empty; a process that was killed while it wrote the file may "
                "have left it so: give the config that the training began with"
            ]
        )
    if _is_cut(content.decode(errors="replace"), path.suffix):
        raise ConfigError(
            [
                f"{config_file} is incomplete: its end is missing, as after an interrupted copy. "
                "Copy it again, or give the config that the training began with"
            ]
        )


def _is_cut(text: str, suffix: str) -> bool:
    keys = _keys(text)
    if keys[:2] == [FIRST, SECTION] and set(get_cfg()[SECTION]) <= set(_keys(text, "  ")):
        return LAST not in keys or not text.endswith("\n")
    if suffix == ".py" or LAZY_KEY not in keys:
        return False
    inside = _keys(text[text.rfind("\ntrain:") :], "  ") if "train" in keys else []
    if keys != sorted(keys) or inside != sorted(inside):  # written by hand
        return False
    return LAZY_LAST not in inside or not text.endswith("\n")


def _keys(text: str, indent: str = "") -> list[str]:
    return re.findall(rf"^{indent}(\w+):", text, re.MULTILINE)
