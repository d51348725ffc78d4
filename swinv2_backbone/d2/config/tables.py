"""The page of the documentation that lists all options, generated from their declarations."""

from __future__ import annotations

import inspect
from typing import Any

from swinv2_backbone.d2.config.options import Option, options_of
from swinv2_backbone.d2.config.sections import SECTIONS

HEAD = """# All options

All training options, with their keys in both config dialects. `tools/option_tables.py` generates
this page from the declarations in `swinv2_backbone/d2/config/sections.py`. Detectron2 options that
are not listed here keep their meaning. On the command line, YAML options are set by `KEY VALUE` and
LazyConfig options by `key=value`. `{backbone}` is the path of the SwinV2 in the model, such as
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


def options_page() -> str:
    """Return docs/OPTIONS.md."""
    return "\n".join([HEAD, *[_table(name, section) for name, section in SECTIONS.items()]])


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
