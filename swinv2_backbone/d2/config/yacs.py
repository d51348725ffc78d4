"""The YAML dialect: a config loaded from files and overrides, and translated to a plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg
from detectron2.config.compat import guess_version
from yaml import YAMLError

from swinv2_backbone.backbone import FEATURES
from swinv2_backbone.d2.config.cut_short import refuse_cut
from swinv2_backbone.d2.config.foreign import adopt, ignored_keys
from swinv2_backbone.d2.config.imports import absent_imports, add_project
from swinv2_backbone.d2.config.options import Dialect, plain
from swinv2_backbone.d2.config.plan import Factories, TrainingPlan
from swinv2_backbone.d2.config.rules import ConfigError, validate
from swinv2_backbone.d2.config.sections import OPTIONS, sections_from
from swinv2_backbone.d2.modeling import trainer_keys
from swinv2_backbone.d2.modeling.architectures import kind_of
from swinv2_backbone.keys import fault_of, no_such_key
from swinv2_backbone.recipes import find_recipe, no_config

RECORD = "IMPORTS"  # key with the imports that a config was read with
# Read by our checkpointer, not by the backbone.
OF_CHECKPOINTER = ("MODEL.SWINV2.PARTIAL_WEIGHTS", "MODEL.SWINV2.STEM")
# Keys that take one number or several; yacs refuses to replace one type by the other.
NUMBER_OR_SEVERAL = ("MODEL.SWINV2.WINDOW_SIZE", "MODEL.SWINV2.PRETRAINED_WINDOW_SIZES")
# Meta-architecture, or one that extends it -> the keys of its numbers of classes.
CLASS_COUNTS = {
    "RetinaNet": {"things": "MODEL.RETINANET.NUM_CLASSES"},
    "SemanticSegmentor": {"stuff": "MODEL.SEM_SEG_HEAD.NUM_CLASSES"},
    "PanopticFPN": {
        "things": "MODEL.ROI_HEADS.NUM_CLASSES",
        "stuff": "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
    },
    "GeneralizedRCNN": {"things": "MODEL.ROI_HEADS.NUM_CLASSES"},
}
# Meta-architectures of Mask2Former and MaskDINO, with one number of classes for every task.
MASK_CLASSIFIERS = ("MaskTransformer", "MaskFormer", "MaskDINO")
PROPOSALS = {  # meta-architecture -> the key of its number of proposals
    "PanopticFPN": "MODEL.RPN.POST_NMS_TOPK_TEST",
    "GeneralizedRCNN": "MODEL.RPN.POST_NMS_TOPK_TEST",
}


def add_swinv2_config(cfg: CfgNode) -> None:
    """Add the keys of this package with their defaults to ``cfg``, which may have some already.

    These are ``MODEL.SWINV2``, ``MODEL.UPERNET`` and the keys of :class:`Trainer`, so that every
    config that the tools have written can be merged. If another trainer builds a SwinV2 from
    ``cfg``, the keys that it may ignore are logged once.
    """
    for key, default in _defaults():
        *path, last = key.split(".")
        node = cfg
        for part in path:
            node = node.setdefault(part, CfgNode())
        if last not in node:
            node[last] = default
            if not key.startswith(("MODEL.", RECORD)) or key in OF_CHECKPOINTER:
                trainer_keys.declare(key, plain(default))


def _set_defaults(cfg: CfgNode) -> None:
    """Give the keys that Detectron2 has too the defaults of our trainer."""
    for key, default in _defaults():
        *path, last = key.split(".")
        node = cfg
        for part in path:
            node = node[part]
        if plain(node[last]) != plain(default):
            node[last] = default


def _defaults() -> Iterator[tuple[str, Any]]:
    """Yield the keys that do not depend on the model, with their defaults."""
    for option in OPTIONS.values():
        if option.yacs and "{" not in option.yacs:
            lists = option.yacs.endswith(".CLASSES")
            yield option.yacs, list(option.default) if lists else option.default


def load_config(
    config_file: str = "", opts: Sequence[str] = (), imports: Sequence[str] = ()
) -> CfgNode:
    """Load and validate a config from a YAML file and overrides ``KEY VALUE ...``, not frozen.

    Args:
        imports: "package.module:function" of other projects. Each ``function(cfg)`` is called
            before the file is read, to add the project's keys; importing the module registers
            its models. Without ":function", the module is only imported.

    Raises:
        ConfigError: keys or values are unknown or invalid; a ValueError that lists all of them.
    """
    cfg = get_cfg()
    add_swinv2_config(cfg)
    _set_defaults(cfg)
    imports = list(dict.fromkeys(imports))
    for name in imports:
        add_project(cfg, name)
    add_swinv2_config(cfg)  # a project may have replaced a node
    opts = [opt for opt in opts if opt != "--"]
    if len(opts) % 2:
        raise ConfigError([f"overrides come in pairs KEY VALUE, got {' '.join(opts)}"])
    faults = _merge_file(cfg, config_file, imports) if config_file else []
    unread = bool(faults)
    for key, value in zip(opts[::2], opts[1::2]):
        faults += _merge(cfg, key, value)
    if unread:  # errors of values would be those of the defaults
        raise ConfigError(faults)
    cfg[RECORD] = imports
    validate(plan_from_yacs(cfg, unreadable=faults))
    return cfg


class _File(CfgNode):
    """A config file whose ``_BASE_`` may be a recipe, if no file beside it has that name."""

    @classmethod
    def _open_cfg(cls, filename: str) -> Any:
        if os.path.exists(filename):
            return super()._open_cfg(filename)
        name = Path(os.path.basename(filename))
        if (recipe := find_recipe(name)) is None:
            raise no_config(name)
        return super()._open_cfg(str(recipe))


def keys_without_effect(cfg: CfgNode) -> dict[str, Any]:
    """Return the keys of other projects that our trainer does not read, with their values."""
    known = get_cfg()
    add_swinv2_config(known)
    return ignored_keys(cfg, known)


def _merge_file(cfg: CfgNode, config_file: str, imports: Sequence[str]) -> list[str]:
    """Merge a file into ``cfg``; return its errors."""
    refuse_cut(config_file)
    try:
        content = _File.load_yaml_with_base(config_file, allow_unsafe=False)
    except YAMLError as error:
        code = "yaml.org,2002:python" in str(error)
        remedy = "\nTags that run code are not read: write the value instead" if code else ""
        raise ConfigError([f"{config_file}: {error}{remedy}"]) from error
    except TypeError:  # a number or nothing, in which no _BASE_ can be looked for
        content = None
    if not isinstance(content, Mapping):
        raise ConfigError(
            [f"{config_file} has no keys and values: a config has lines 'KEY: value'"]
        )
    content = CfgNode(content)
    if absent := absent_imports(content.pop(RECORD, ()), imports, config_file):
        raise ConfigError(absent)  # its other errors follow from this one
    version = content.get("VERSION") or guess_version(content, config_file)
    current = version == cfg.VERSION  # files in another version have other keys
    unknown = _unknown_keys(content, cfg) if current else []
    faults = [f"{fault} (in {config_file})" for fault in unknown]
    if unknown and not imports and ": no such key" in unknown[-1]:
        faults[-1] += "; --import package.module:function adds the keys of another project"
    if not faults:
        try:
            if current:
                cfg.merge_from_other_cfg(_numbers_as(cfg, content))
            else:
                cfg.merge_from_file(config_file, allow_unsafe=False)
        except (AssertionError, KeyError, ValueError) as error:  # raised by yacs
            faults.append(f"{error} (in {config_file})")
    return faults


def _unknown_keys(content: Mapping, known: Mapping, path: str = "") -> list[str]:
    """Report the keys of a file that ``known`` does not have."""
    faults: list[str] = []
    for key, value in content.items():
        if key not in known:
            faults.append(no_such_key(f"{path}{key}", list(known)))
        elif isinstance(value, Mapping) and isinstance(known[key], Mapping):
            faults += _unknown_keys(value, known[key], f"{path}{key}.")
    return faults


def _numbers_as(known: Any, value: Any) -> Any:
    """Return a value with each integer as a float where ``known`` has a float.

    yacs would refuse ``WEIGHT_DECAY: 0``, because the default is 0.0.
    """
    if isinstance(value, CfgNode) and isinstance(known, CfgNode):
        for key in value:
            value[key] = _numbers_as(known.get(key), value[key])
        return value
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and isinstance(known, float) else value


def _merge(cfg: CfgNode, key: str, value: Any) -> list[str]:
    """Merge one override into ``cfg``; return its errors."""
    if key == RECORD:
        return [f"{RECORD} records --import package.module:function: give this instead"]
    if fault := fault_of(key, cfg):
        return [fault]
    node: Any = cfg
    for part in key.split("."):
        node = node[part]
    if isinstance(node, Mapping):
        return [f"{key} {value}: {key} has keys of its own, {', '.join(node)}: set one of them"]
    if isinstance(node, float):
        value = _numbers_as(node, CfgNode._decode_cfg_value(value))
    if key in NUMBER_OR_SEVERAL:
        cfg.MODEL.SWINV2[key.rsplit(".", 1)[1]] = None
    try:
        cfg.merge_from_list([key, value])
    except (AssertionError, KeyError, ValueError) as error:
        return [f"{key}: {error}"]
    return []


def plan_from_yacs(
    cfg: CfgNode,
    factories: Callable[[CfgNode], Factories] | None = None,
    unreadable: Sequence[str] = (),
) -> TrainingPlan:
    """Translate a config; it is copied, not changed.

    Args:
        factories: function that returns the builders of the model, loaders, ... for a config.
        unreadable: errors found while loading.
    """
    if "SWINV2" not in cfg.MODEL or "CUSTOM" not in cfg.DATASETS:
        raise ConfigError(["the config lacks keys of this trainer: start from load_config()"])
    config = Dialect.YACS.copy(cfg)
    unreadable = [*unreadable, *adopt(config)]
    kind, ours = kind_of(cfg.MODEL.META_ARCHITECTURE), "swinv2" in cfg.MODEL.BACKBONE.NAME
    places = {"things": "", "stuff": "", **CLASS_COUNTS.get(kind, {})}
    if cfg.MODEL.META_ARCHITECTURE in MASK_CLASSIFIERS and cfg.INPUT.MASK_TARGETS != "none":
        counted = "things" if cfg.INPUT.MASK_TARGETS == "instance" else "stuff"
        places[counted] = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"
    places["backbone"] = "MODEL.SWINV2" if ours else ""
    places["proposals"] = PROPOSALS.get(kind, "")
    values = {}
    for name, option in OPTIONS.items():
        if key := option.yacs.format_map(places):
            node: Any = config
            for part in key.split("."):
                node = node[part]
            values[name] = plain(node)
    values |= _resolved(config)
    config.freeze()
    return TrainingPlan(
        **sections_from(values),
        dialect=Dialect.YACS,
        config=config,
        translate=lambda other: plan_from_yacs(other, factories),
        places=places,
        factories=factories(config) if factories else None,
        unreadable=tuple(unreadable),
    )


def _resolved(config: CfgNode) -> dict[str, Any]:
    """Read the options whose value follows from other keys."""
    found: dict[str, Any] = {"backbone.in_channels": len(config.MODEL.PIXEL_MEAN)}
    if isinstance(config.OUTPUT_DIR, str):
        found["run.output_dir"] = os.path.normpath(config.OUTPUT_DIR)
    if "swinv2" in config.MODEL.BACKBONE.NAME:
        found["backbone.out_features"] = plain(_features(config))
    custom = config.DATASETS.CUSTOM
    given = {split: bool(custom[split].JSON or custom[split].LABELS) for split in ("TRAIN", "TEST")}
    if any(given.values()):
        for split, own in given.items():
            found[f"data.{split.lower()}"] = (custom[split].NAME,) if own else ()
    return found


def _features(config: CfgNode) -> Sequence[str]:
    """Return the configured features; by default, those that the FPN or head uses."""
    taken = config.MODEL.SEM_SEG_HEAD.IN_FEATURES
    if config.MODEL.SWINV2.OUT_FEATURES:
        return config.MODEL.SWINV2.OUT_FEATURES
    if "fpn" in config.MODEL.BACKBONE.NAME:
        return config.MODEL.FPN.IN_FEATURES
    semantic = config.MODEL.META_ARCHITECTURE == "SemanticSegmentor"
    return taken if semantic and taken and set(taken) <= set(FEATURES) else FEATURES
