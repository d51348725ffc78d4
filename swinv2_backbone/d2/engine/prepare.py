"""Preparation of a run: registers datasets and checks files, classes and metrics."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf

from swinv2_backbone.checkpoints.fetch import check_source
from swinv2_backbone.d2.config.bands import number_of_bands, with_bands
from swinv2_backbone.d2.config.lazy_parts import target_name
from swinv2_backbone.d2.config.options import Dialect
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.config.rules import ConfigError
from swinv2_backbone.d2.data.datasets.checked import cache_folder
from swinv2_backbone.d2.data.datasets.coco import class_names_in, makes_bitmaps
from swinv2_backbone.d2.data.datasets.custom import (
    log_bitmaps,
    register_custom_datasets,
    warn_of_unknown_classes,
)
from swinv2_backbone.d2.data.datasets.selected import (
    check_datasets,
    check_same_classes,
    warn_of_images_in_both,
    warn_of_other_counts,
)
from swinv2_backbone.d2.data.validation.report import counted
from swinv2_backbone.d2.engine.rehearsal import shorten
from swinv2_backbone.d2.evaluation.metrics import evaluation_faults
from swinv2_backbone.d2.modeling.architectures import kind_of
from swinv2_backbone.d2.modeling.build import OF_A_PROJECT

CLASSES = {"model.thing_classes": "thing_classes", "model.stuff_classes": "stuff_classes"}
METRICS = ("evaluation.best_metric", "evaluation.early_stopping_metric")


def prepare(
    plan: TrainingPlan, *, eval_only: bool = False, resume: bool = False, rehearse: bool = False
) -> TrainingPlan:
    """Register the user's datasets and check what the plan needs.

    Args:
        rehearse: shorten the plan to a trial run; its output folder must be the trial run's.

    Returns:
        The plan, with the registered datasets.

    Raises:
        ValueError: the plan cannot work; the message has the remedy.
    """
    if faults := list(_unregistered(plan)):
        raise ConfigError(faults)
    plan = register_datasets(plan, ("test",) if eval_only else ("train", "test"))
    if faults := list(_missing(plan, eval_only, resume, rehearse)):
        raise ConfigError(faults)
    tested = list(plan.data.test)
    trained = [] if eval_only else list(plan.data.train)
    used = [*trained, *tested]  # the first one has the classes of the model
    check_datasets(used)
    faults = [
        *class_faults(plan, used, trained=not eval_only),
        *_evaluation_faults(plan, tested, eval_only),
    ]
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))  # one dataset may have both uses
    if comm.is_main_process():
        cache = cache_folder(plan.data.cache or "", plan.run.output_dir)
        warn_of_images_in_both(trained, tested, cache)
        warn_of_other_counts(trained, tested)
    check_source(plan.run.weights)
    return shorten(plan) if rehearse else plan


def _unregistered(plan: TrainingPlan) -> Iterator[str]:
    """Report models that are in no registry; a LazyConfig names its classes instead."""
    if plan.dialect is Dialect.LAZY:
        return
    chosen = {
        "MODEL.META_ARCHITECTURE": (plan.model.architecture, META_ARCH_REGISTRY),
        "MODEL.BACKBONE.NAME": (plan.config.MODEL.BACKBONE.NAME, BACKBONE_REGISTRY),
    }
    for key, (name, registry) in chosen.items():
        if name not in registry:
            near = difflib.get_close_matches(name, [each for each, _ in registry], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield f"{key} {name!r} is not registered{hint} {OF_A_PROJECT}"


def register_datasets(plan: TrainingPlan, splits: Sequence[str]) -> TrainingPlan:
    """Register the datasets that the config describes; return the plan that selects them.

    Args:
        splits: some of "train" and "test".

    Raises:
        ValueError: a dataset cannot be used.
    """
    if plan.dialect is Dialect.YACS:
        assert plan.translate is not None
        upper = tuple(split.upper() for split in splits)
        return plan.translate(register_custom_datasets(plan.config, upper))
    own = plan.config.get("datasets") or {}
    for split in splits:
        if split in own:
            call = _with_classes(own, split, splits)
            instantiate(with_bands(call, number_of_bands(plan)))
    return _with_bitmaps(plan) if "train" in splits else plan


def _with_bitmaps(plan: TrainingPlan) -> TrainingPlan:
    """Return the plan with bitmaps, if the masks of the training set may become RLE."""
    train: Any = (plan.config.get("datasets") or {}).get("train")
    key = "dataloader.train.mapper.instance_mask_format"
    if not _registers_coco(train) or not train.get("masks", True):
        return plan
    if not makes_bitmaps(train.get("crowds", "check"), train.get("holes", "fill")):
        return plan
    if OmegaConf.select(plan.config, key) in (None, "bitmask"):  # None: the user's own mapper
        return plan
    config = plan.dialect.copy(plan.config)
    OmegaConf.update(config, key, "bitmask")
    log_bitmaps(key)
    assert plan.translate is not None
    return plan.translate(config)


def _with_classes(own: DictConfig, split: str, splits: Sequence[str]) -> DictConfig:
    """Return the call that registers a split; a test set gets the classes of the training."""
    call, train = own[split], own.get("train")
    if split == "train" or not (_registers_coco(call) and _registers_coco(train)):
        return call
    if call.get("classes") is not None:
        return call
    call = copy.deepcopy(call)  # its parent is the same, so that references hold
    if "train" in splits:
        call.classes = list(MetadataCatalog.get(train.name).thing_classes)
    elif train.get("classes") is not None:
        call.classes = train.classes
    elif Path(train.json_file).exists():
        given = {key: train[key] for key in ("images", "format") if key in train}
        call.classes = class_names_in(train.json_file, **given)
    else:
        warn_of_unknown_classes(call.json_file)
    return call


def _registers_coco(call: Any) -> bool:
    return OmegaConf.is_dict(call) and "_target_" in call and target_name(call) == "register_coco"


def _missing(plan: TrainingPlan, eval_only: bool, resume: bool, rehearse: bool) -> Iterator[str]:
    if eval_only and not plan.run.weights and not resume:
        weights = plan.setting("run.weights", "output/model_final.pth")
        yield f"nothing to evaluate: set {weights}"
    if not eval_only and not plan.data.train and not _own_loader(plan, "train"):
        yield f"nothing to train on: set {plan.key('data.train_json')}"
    if _own_loader(plan, "test") and plan.config.dataloader.get("evaluator") is not None:
        yield (
            f"dataloader.test has no {plan.key('data.test').partition('test.')[2]}: name the "
            "dataset to test on there, or set dataloader.evaluator=null"
        )
    if not eval_only:
        yield from _missing_trackers(plan)
    if rehearse and resume:
        yield "--fast-dev-run always starts anew: omit --resume"
    if len(plan.data.test) > 1 and not _takes_any_dataset(plan):
        yield (
            f"{plan.key('data.test')} has {len(plan.data.test)} datasets, but "
            "dataloader.evaluator has no dataset_name: use a single test dataset"
        )


def _missing_trackers(plan: TrainingPlan) -> Iterator[str]:
    for name in plan.run.trackers:
        if find_spec(name) is None:
            yield (
                f"{plan.key('run.trackers')} has {name!r}, but its package is not installed: "
                f"pip install 'swinv2_backbone[{name}]'"
            )


def _own_loader(plan: TrainingPlan, split: str) -> bool:
    """Return True if a LazyConfig's loader names no dataset, because it is the user's own."""
    if plan.dialect is Dialect.YACS or plan.config.dataloader.get(split) is None:
        return False
    dataset = plan.config.dataloader[split].get("dataset")
    return not OmegaConf.is_dict(dataset) or "names" not in dataset


def _takes_any_dataset(plan: TrainingPlan) -> bool:
    """Return True if the evaluator takes the name of a dataset."""
    return plan.dialect is Dialect.YACS or "dataset_name" in plan.config.dataloader.evaluator


def class_faults(
    plan: TrainingPlan, datasets: Sequence[str], *, trained: bool = True
) -> Iterator[str]:
    """Compare the heads' numbers of classes with those of the datasets.

    Args:
        datasets: names of datasets; if ``trained``, the first one is trained on.
    """
    for option, kind in CLASSES.items():
        if plan[option] is None:
            continue
        check_same_classes(datasets, kind)
        for dataset in datasets:
            names = list(MetadataCatalog.get(dataset).get(kind) or ())
            if names and len(names) != plan[option]:
                more = ", ..." if len(names) > 10 else ""
                remedy = f"set {plan.setting(option, len(names))}"
                if not trained:
                    remedy = (
                        "the classes of the training decide: evaluate on a dataset that has them, "
                        f"or give {plan.key('data.class_names')} their names"
                    )
                yield (
                    f"{plan.key(option)} is {plan[option]}, but {dataset} has "
                    f"{counted(len(names), 'class')} ({', '.join(names[:10])}{more}); {remedy}"
                )


def _evaluation_faults(plan: TrainingPlan, tested: Sequence[str], eval_only: bool) -> Iterator[str]:
    """Check that the datasets can be evaluated and will have the requested metrics."""
    node = plan.config.dataloader.get("evaluator") if plan.dialect is Dialect.LAZY else None
    ours = node is None or (OmegaConf.is_dict(node) and target_name(node) == "build_evaluator")
    if tested and not ours:
        return  # a custom evaluator, with metrics of its own
    masks = plan.model.masks or not kind_of(plan.model.architecture)  # of a project: unknown
    seen = []
    for name in METRICS:
        metric = "" if eval_only else plan[name]
        for option, message in evaluation_faults(tested, metric, masks=masks):
            option = name if option == METRICS[0] else option
            text = f"{plan.key(option)} {message}"
            if text not in seen:
                seen.append(text)
                yield text
