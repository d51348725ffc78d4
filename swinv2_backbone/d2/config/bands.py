"""The number of channels or bands of the images: rules between the options that state it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from detectron2 import data
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from swinv2_backbone.d2.config.options import Dialect
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.data.datasets.coco import register_coco
from swinv2_backbone.d2.data.datasets.semantic import register_semantic
from swinv2_backbone.d2.data.loading.bands import BANDS, bands_of
from swinv2_backbone.d2.data.loading.mapper import DatasetMapper

COLORS = ("RGB", "BGR")
COUNTING = (DatasetMapper, register_coco, register_semantic)  # have the argument ``bands``
DATASETS = ("datasets.train", "datasets.test")
OPTIONS = [
    *("model.pixel_mean", "model.pixel_std", "backbone.in_channels", "augmentation.color"),
    *("augmentation.image_format", "augmentation.display_bands"),
]


def number_of_bands(plan: TrainingPlan) -> int | None:
    """Return the number of bands that images must have; None for RGB and BGR, or if unknown."""
    known = _states_mean(plan)
    return bands_of(plan.augmentation.image_format, plan.model.pixel_mean) if known else None


def check_bands(plan: TrainingPlan) -> Iterator[str]:
    """Yield a message for each setting that contradicts the number of bands."""
    if not _states_mean(plan):  # a model of someone else, which need not have one
        return
    mean, std = plan.model.pixel_mean, plan.model.pixel_std
    if len(mean) != len(std):
        yield (
            f"{plan.key('model.pixel_mean')} has {len(mean)} numbers, but "
            f"{plan.key('model.pixel_std')} has {len(std)}: give both one for each channel or band"
        )
    if plan.dialect is Dialect.LAZY and plan.places["backbone"]:
        found, key = plan.backbone.in_channels, plan.key("backbone.in_channels")
        if found != len(mean):
            yield (
                f"{key} is {found}, but {plan.key('model.pixel_mean')} has {len(mean)} numbers: "
                f"set {plan.setting('backbone.in_channels', len(mean))}"
            )
    rule = _check_bands if plan.augmentation.image_format == BANDS else _check_colors
    yield from rule(plan)


def _check_colors(plan: TrainingPlan) -> Iterator[str]:
    node, key = plan.augmentation, "augmentation.image_format"
    count = len(plan.model.pixel_mean)
    given = plan.dialect is Dialect.YACS or "image_format" in _mapper(plan.config, "train")
    if given and node.image_format in COLORS and count != len(COLORS[0]):
        yield (
            f"{plan.setting(key, node.image_format)} has 3 channels, but "
            f"{plan.key('model.pixel_mean')} has {count} numbers: for images of {count} bands, set "
            f"{plan.setting(key, BANDS)}"
        )
    if given and node.image_format.upper() in (*COLORS, BANDS) and node.image_format not in COLORS:
        yield (
            f"{plan.key(key)} must be in capitals, {node.image_format.upper()}, got "
            f"{node.image_format!r}"
        )
    if node.display_bands:
        yield f"{plan.key('augmentation.display_bands')} needs {plan.setting(key, BANDS)}"
    if given and plan.dialect is Dialect.LAZY and node.image_format in COLORS:
        for path, _ in _stated_bands(plan.config):
            yield f"{path}.bands needs {plan.setting(key, BANDS)}"


def _check_bands(plan: TrainingPlan) -> Iterator[str]:
    node, count = plan.augmentation, len(plan.model.pixel_mean)
    setting = plan.setting("augmentation.image_format", BANDS)
    if node.color:
        remedy = f"set {plan.key('augmentation.color')} False"
        if plan.dialect is Dialect.LAZY:
            remedy = "remove ColorAugmentation from dataloader.train.mapper.augmentations"
        yield f"{setting} has no colors to augment: {remedy}"
    if len(node.display_bands) > 3:
        key = plan.key("augmentation.display_bands")
        yield f"{key} must be three bands, got {node.display_bands!r}"
    elif absent := [band for band in node.display_bands if band >= count]:
        yield (
            f"{plan.key('augmentation.display_bands')} {node.display_bands} has {absent[0]}, but "
            f"the {count} bands of {plan.key('model.pixel_mean')} are counted from 0 to {count - 1}"
        )
    key = "VIS_PERIOD" if plan.dialect is Dialect.YACS else "model.vis_period"
    if _vis_period(plan):
        yield f"{setting} cannot be drawn by Detectron2: set {plan.dialect.setting(key, 0)}"
    if plan.dialect is Dialect.LAZY:
        yield from _check_mappers(plan)
        for path, stated in _stated_bands(plan.config):
            if stated != count:
                mean = plan.key("model.pixel_mean")
                yield f"{path}.bands is {stated}, but {mean} has {count} numbers"


def _stated_bands(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """Yield the calls of a LazyConfig that state a number of bands, with the number."""
    for part in ("dataloader.train.mapper", "dataloader.test.mapper", *DATASETS):
        call = OmegaConf.select(config, part)
        if OmegaConf.is_dict(call) and call.get("bands") is not None:
            yield part, call.bands


def _check_mappers(plan: TrainingPlan) -> Iterator[str]:
    """Check that the mappers of a LazyConfig read bands."""
    for split in ("train", "test"):
        mapper, path = _mapper(plan.config, split), f"dataloader.{split}.mapper"
        if mapper and _target(mapper) is data.DatasetMapper:
            yield (
                f"{path} is Detectron2's DatasetMapper, which cannot read bands: take "
                "swinv2_backbone.d2.DatasetMapper"
            )
        if mapper.get("image_format", BANDS) != BANDS:
            yield (
                f"{path}.image_format is {mapper.image_format!r}, but that of training is {BANDS!r}"
            )


def with_bands(call: Any, bands: int | None) -> Any:
    """Return a copy of a LazyCall that requires ``bands``, or the call itself if it is not ours.

    Args:
        call: call of a mapper, or of a function that registers a dataset.
    """
    if bands is None or not OmegaConf.is_dict(call) or _target(call) not in COUNTING:
        return call
    call = copy.deepcopy(call)  # its parent is the same, so that references hold
    call.bands = bands
    return call


def with_bands_in_mapper(loader: DictConfig, bands: int | None) -> DictConfig:
    """Return a copy of a loader of a LazyConfig whose mapper requires ``bands`` if it is ours."""
    loader = copy.deepcopy(loader)
    if loader.get("mapper") is not None:
        loader.mapper = with_bands(loader.mapper, bands)
    return loader


def _target(call: DictConfig) -> Any:
    target = call.get("_target_")
    try:
        return get_object(target) if isinstance(target, str) else target
    except (HydraException, ImportError, ValueError):  # the call itself will raise
        return None


def _states_mean(plan: TrainingPlan) -> bool:
    """Return True if the config has a mean and a standard deviation."""
    model = plan.config.model if plan.dialect is Dialect.LAZY else {}
    return plan.dialect is Dialect.YACS or ("pixel_mean" in model and "pixel_std" in model)


def _mapper(config: DictConfig, split: str) -> Any:
    mapper = OmegaConf.select(config, f"dataloader.{split}.mapper")
    return mapper if OmegaConf.is_dict(mapper) else {}


def _vis_period(plan: TrainingPlan) -> int:
    if plan.dialect is Dialect.YACS:
        return plan.config.VIS_PERIOD
    return plan.config.model.get("vis_period", 0)
