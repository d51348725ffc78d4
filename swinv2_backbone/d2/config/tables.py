"""The pages of the documentation that list all options, generated from their declarations."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from swinv2_backbone.d2.config.options import Option, options_of
from swinv2_backbone.d2.config.sections import SECTIONS

HEAD = """# All options

All training options, with their keys in both config dialects: those of the model here, and on
two more pages [Options of training](OPTIONS_TRAINING.md) and
[Options of data and evaluation](OPTIONS_DATA.md). `tools/option_tables.py` generates these pages
from the declarations in `swinv2_backbone/d2/config/sections.py`. Detectron2 options that are not
listed keep their meaning. On the command line, YAML options are set by `KEY VALUE` and LazyConfig
options by `key=value`. `{backbone}` is the path of the SwinV2 in the model, such as
`model.backbone.bottom_up`. `[ResizeShortestEdge]` is the first augmentation of that class in the
list; on the command line, use its index: `augmentations.0.max_size`.
"""
# The key of the number of classes depends on the head.
PLACES = {
    "backbone": "{backbone}",
    "things": "`NUM_CLASSES` or `num_classes` of the head",
    "stuff": "`NUM_CLASSES` or `num_classes` of the semantic head",
    "detections": "`test_topk_per_image` of the box predictor, or `max_detections_per_image`",
    "proposals": "`MODEL.RPN.POST_NMS_TOPK_TEST`; LazyConfig: second `post_nms_topk`",
}


def options_pages() -> dict[str, str]:
    """Return the content of each page by its file name in docs/."""
    training = ("optimizer", "schedule", "precision", "clipping", "step", "run")
    data = ("data", "augmentation", "evaluation")
    model = [name for name in SECTIONS if name not in (*training, *data)]
    see = "The columns are explained in [All options](OPTIONS.md).\n"
    return {
        "OPTIONS.md": _page(HEAD, model),
        "OPTIONS_TRAINING.md": _page(f"# Options of training\n\n{see}", training),
        "OPTIONS_DATA.md": _page(f"# Options of data and evaluation\n\n{see}", data),
    }


def _page(head: str, sections: Sequence[str]) -> str:
    return "\n".join([head, *[_table(name, SECTIONS[name]) for name in sections]])


def _table(name: str, section: type) -> str:
    title = (inspect.getdoc(section) or "").rstrip(".")
    rows = [f"## {title}", "", "| YAML | LazyConfig | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*rows, *[_row(option) for option in options_of(section, name)], ""])


def _row(option: Option) -> str:
    keys = [_code(key.format_map(PLACES)) for key in (option.yacs, option.lazy)]
    default = _value(option.default)
    if option.lazy_default != option.default:
        default = f"{default}; LazyConfig: {_value(option.lazy_default)}"
    return f"| {keys[0]} | {keys[1]} | {default} | {option.doc} |"


def _code(key: str) -> str:
    return key if not key or "`" in key else f"`{key}`"


def _value(value: Any) -> str:
    return '""' if value == "" else f"`{value}`"
