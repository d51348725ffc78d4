"""The LazyConfig dialect: a config loaded from a file and overrides, and translated to a plan.

A LazyConfig has ``model``, ``dataloader.{train,test,evaluator}``, ``optimizer`` and
``lr_multiplier``, as in Detectron2, and ``train``, whose keys and defaults are the options
of the plan. ``datasets.{train,test}`` may register datasets.
"""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from swinv2_backbone.backbone import FEATURES
from swinv2_backbone.d2.config.cut_short import refuse_cut
from swinv2_backbone.d2.config.imports import import_modules
from swinv2_backbone.d2.config.lazy_factories import lazy_factories
from swinv2_backbone.d2.config.lazy_parts import (
    augmentation,
    calls,
    clipping,
    detections_key,
    limits,
    schedule,
    target_name,
)
from swinv2_backbone.d2.config.options import Dialect, plain
from swinv2_backbone.d2.config.overrides import apply_overrides
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.config.rules import ConfigError, validate
from swinv2_backbone.d2.config.sections import OPTIONS, sections_from
from swinv2_backbone.d2.data.loading.bands import bands_of
from swinv2_backbone.d2.data.loading.mask_targets import INSTANCE
from swinv2_backbone.keys import no_such_key

PARTS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")
BACKBONES = ("D2SwinV2", "SwinV2")
SPLITS = ("train", "test")


def train_defaults() -> dict[str, Any]:
    """Return the keys under ``train`` with their defaults, nested."""
    found: dict[str, Any] = {"clip": None}
    for option in OPTIONS.values():
        head, *path = option.lazy.split(".")
        if head == "train" and path[0] != "clip":
            node = found
            for part in path[:-1]:
                node = node.setdefault(part, {})
            node[path[-1]] = option.lazy_default
    return found


def load_lazy_config(
    config_file: str, opts: Sequence[str] = (), imports: Sequence[str] = ()
) -> DictConfig:
    """Load and validate a LazyConfig from a .py file and overrides ``key=value``.

    Missing keys of ``train`` are filled in with their defaults.

    Args:
        imports: modules to import before the file is read, such as one that registers datasets.

    Raises:
        ConfigError: a part is missing, or keys or values are unknown or invalid; a ValueError
            that lists all of them.
    """
    if not Path(config_file).is_file():
        raise ConfigError([f"--config-file {config_file!r} does not exist"])
    refuse_cut(config_file)
    opts = [opt for opt in opts if opt != "--"]
    wrong = [opt for opt in opts if "=" not in opt]
    if wrong:
        raise ConfigError([f"overrides of a LazyConfig are key=value, got {' '.join(wrong)}"])
    import_modules(imports, config_file)
    cfg = LazyConfig.load(str(config_file))
    absent = [part for part in PARTS if part not in cfg]
    if absent:
        raise ConfigError([f"{config_file} has no {', '.join(absent)}"])
    faults = _complete(cfg)
    known = []
    for opt in opts:
        fault = _unknown_override(cfg, opt)
        faults += fault
        known += [] if fault else [opt]
    try:
        cfg = apply_overrides(cfg, known)
    except (HydraException, OmegaConfBaseException, KeyError) as error:
        raise ConfigError([*faults, f"{error} (in {config_file}, {' '.join(opts)})"]) from error
    faults += [fault for fault in _complete(cfg) if fault not in faults]
    if not_calls := list(_not_calls(cfg)):  # there is nothing to translate
        raise ConfigError([*faults, *not_calls])
    try:
        plan = plan_from_lazy(cfg, unreadable=faults)
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError([*faults, f"{where}{str(error).splitlines()[0]}"]) from error
    validate(plan)
    return cfg


def _not_calls(cfg: DictConfig) -> Iterator[str]:
    """Report the parts that must be LazyCalls, or a dict, and are not."""
    calls = ["model", "optimizer", "lr_multiplier"]
    if OmegaConf.is_dict(cfg.lr_multiplier) and "scheduler" in cfg.lr_multiplier:
        calls.append("lr_multiplier.scheduler")
    for key in calls:
        node = OmegaConf.select(cfg, key)
        if not OmegaConf.is_dict(node) or "_target_" not in node:
            yield f"{key} must be a LazyCall, got {node}"
    if not OmegaConf.is_dict(cfg.dataloader):
        yield f"dataloader must be a dict of train, test and evaluator, got {cfg.dataloader}"


def _complete(cfg: DictConfig) -> list[str]:
    """Add the defaults to ``train``; drop its invalid keys and return an error for each."""
    faults: list[str] = []
    known = train_defaults()
    given = OmegaConf.to_container(cfg.train) if OmegaConf.is_dict(cfg.train) else cfg.train
    given = _known_part(given, known, "train", faults)
    cfg.train = OmegaConf.merge(OmegaConf.create(known), OmegaConf.create(given))
    return faults


def _known_part(given: Any, known: dict, path: str, faults: list[str]) -> dict:
    """Return the keys of ``given`` that ``known`` has; report the others."""
    if not isinstance(given, dict):
        faults.append(f"{path} is {given!r}, not a dict of {', '.join(known)}")
        return {}
    found = {}
    for key, value in given.items():
        if key not in known:
            faults.append(no_such_key(f"{path}.{key}", list(known)))
        elif isinstance(known[key], dict):
            found[key] = _known_part(value, known[key], f"{path}.{key}", faults)
        else:
            found[key] = value
    return found


def _unknown_override(cfg: DictConfig, opt: str) -> list[str]:
    """Report an override of a key that the config does not have.

    The last part of a key may be new, because it may be an argument left at its default value.
    """
    name = opt.split("=")[0].lstrip("+~")
    path = name.split(".")
    for depth in range(1, max(len(path), 2)):
        part = ".".join(path[:depth])
        if OmegaConf.select(cfg, part) is None:
            parent = OmegaConf.select(cfg, ".".join(path[: depth - 1])) if depth > 1 else cfg
            keys = [str(key) for key in parent] if OmegaConf.is_dict(parent) else []
            near = difflib.get_close_matches(path[depth - 1], keys, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            return [f"{opt}: the config has no {part}{hint}"]
    return []


def _unknown_arguments(cfg: DictConfig) -> list[str]:
    """Report arguments of LazyCalls that the called function or class does not accept."""
    faults = []
    for part in (part for part in ("datasets", *PARTS) if cfg.get(part) is not None):
        for path, call in calls(cfg[part], part):
            target = call["_target_"]
            try:
                target = get_object(target) if isinstance(target, str) else target
                parameters = inspect.signature(target).parameters
            except (HydraException, ImportError, TypeError, ValueError):
                continue  # the call itself will raise
            if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
                continue
            given = [str(key) for key in call if not str(key).startswith("_")]
            names = list(parameters)
            faults += [no_such_key(f"{path}.{key}", names) for key in given if key not in names]
    return faults


def plan_from_lazy(cfg: DictConfig, unreadable: Sequence[str] = ()) -> TrainingPlan:
    """Translate a config; it is copied, not changed.

    Args:
        unreadable: errors found while loading.
    """
    config, places = Dialect.LAZY.copy(cfg), _places(cfg)
    values: dict[str, Any] = {}
    for name, option in OPTIONS.items():
        key = option.lazy.format_map(places)
        found = option.lazy_default
        if key and not key.startswith(".") and "[" not in key:  # a key, not part of a call
            found = _value(config, key, found)
        values[name] = plain(found)
    faults = [*unreadable, *_unknown_arguments(config)]
    for read in (_model, _optimizer, schedule, clipping, augmentation, _data):
        values.update(read(config, faults))
    mean = values["model.pixel_mean"] if "pixel_mean" in config.model else None
    image_format = values["augmentation.image_format"]
    bands = bands_of(image_format, mean) if isinstance(mean, tuple) else None
    return TrainingPlan(
        **sections_from(values),
        dialect=Dialect.LAZY,
        config=config,
        translate=plan_from_lazy,
        places=places,
        factories=lazy_factories(config, values["evaluation.detections_per_image"], bands),
        unreadable=tuple(dict.fromkeys(faults)),
    )


def _value(config: DictConfig, key: str, default: Any) -> Any:
    """Return the value of a key that may be missing; calls and dicts are read elsewhere."""
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not OmegaConf.is_dict(node) or last not in node or OmegaConf.is_dict(node[last]):
        return default
    return node[last]


def _places(cfg: DictConfig) -> dict[str, str]:
    """Find the backbone and the numbers of classes in the model."""
    model = cfg.model
    backbones = [path for path, call in calls(model, "model") if target_name(call) in BACKBONES]
    things = "model.roi_heads.num_classes" if "roi_heads" in model else ""
    if not things and "num_classes" in model:
        things = "model.num_classes"
    stuff = "model.sem_seg_head.num_classes" if "sem_seg_head" in model else ""
    return {
        "backbone": backbones[0] if backbones else "",
        "things": things,
        "stuff": stuff,
        "detections": detections_key(model),
        "proposals": "model.proposal_generator.post_nms_topk.1"
        if "proposal_generator" in model
        else "",
    }


def _model(config: DictConfig, faults: list[str]) -> dict[str, Any]:
    heads = config.model.get("roi_heads") or {}
    places = _places(config)
    backbone = places["backbone"]
    features = OmegaConf.select(config, f"{backbone}.out_features") if backbone else None
    targets = OmegaConf.select(config, "dataloader.train.mapper.mask_targets")
    return {
        "backbone.out_features": plain(features or FEATURES),
        "model.architecture": target_name(config.model),
        "model.masks": heads.get("mask_head") is not None or targets == INSTANCE,
        "model.keypoints": heads.get("keypoint_head") is not None,
        **limits(config, places),
    }


def _optimizer(config: DictConfig, faults: list[str]) -> dict[str, Any]:
    name = target_name(config.optimizer)
    found: dict[str, Any] = {"optimizer.name": {"AdamW": "ADAMW"}.get(name, name)}
    if name == "SGD" and "momentum" not in config.optimizer:
        found["optimizer.momentum"] = 0.0  # torch's default
    params = config.optimizer.get("params")
    if OmegaConf.is_dict(params) and "_target_" in params:
        faults += _without_effect(config.optimizer, params)
    for key in ("lr", "weight_decay"):  # other parameter groups leave them to the optimizer
        if key in config.optimizer and not (OmegaConf.is_dict(params) and key in params):
            found[f"optimizer.{key}"] = config.optimizer[key]
    return found


def _without_effect(optimizer: DictConfig, params: DictConfig) -> Iterator[str]:
    """Report options of the optimizer that our parameter groups override."""
    if target_name(params) != "parameter_groups":
        return
    for key in ("lr", "weight_decay"):
        if key in optimizer and optimizer[key] != params.get(key):
            yield (
                f"optimizer.{key} {optimizer[key]} has no effect, because each parameter group has "
                f"its own: set optimizer.params.{key}={optimizer[key]}, and omit "
                f"optimizer.{key} or set it to the same value"
            )


def _data(config: DictConfig, faults: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(config.train.output_dir, str):
        found["run.output_dir"] = os.path.normpath(config.train.output_dir)
    for split in ("train", "test"):
        names = OmegaConf.select(config, f"dataloader.{split}.dataset.names")
        found[f"data.{split}"] = (names,) if isinstance(names, str) else tuple(names or ())
    if config.dataloader.get("evaluator") is None:  # as in Detectron2, there is no evaluation then
        found["data.test"] = ()
    own = config.get("datasets") or {}
    faults += [no_such_key(f"datasets.{split}", SPLITS) for split in own if split not in SPLITS]
    return found
