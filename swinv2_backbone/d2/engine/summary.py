"""A summary of a run, printed before its first iteration."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from torch import nn

from swinv2_backbone import backbone as core
from swinv2_backbone.checkpoints.pretrained_window import describe
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.data.validation.report import counted
from swinv2_backbone.d2.engine.advice import advice
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.modeling.backbone import D2SwinV2

logger = logging.getLogger(__name__)


def log_summary(
    plan: TrainingPlan,
    checkpointer: Checkpointer,
    start_iter: int | None,
    changes: Sequence[str] = (),
) -> None:
    """Log the summary of a run, and warnings about its limits and sizes (see :func:`advice`).

    Args:
        checkpointer, start_iter, changes: see :func:`summarize`.
    """
    if not comm.is_main_process():
        return
    names = [*plan.data.test, *(plan.data.train if start_iter is not None else ())]
    objects = {name: count_objects(name) for name in dict.fromkeys(names)}
    logger.info(f"\n{summarize(plan, checkpointer, start_iter, objects, changes)}")
    for text in advice(plan, {name: one.counts for name, one in objects.items()}):
        logger.warning(text)


class Objects(NamedTuple):
    """The objects of a dataset, without crowds.

    Attributes:
        images: number of images.
        counts: number of objects in each image; empty if the dataset has no annotations of objects.
    """

    images: int
    counts: Sequence[int]

    def __str__(self) -> str:
        if not self.counts:
            return counted(self.images, "image")
        empty = sum(not count for count in self.counts)
        images, objects = counted(self.images, "image"), counted(sum(self.counts), "object")
        return f"{images} ({empty} without objects), {objects}"


def count_objects(name: str) -> Objects:
    """Count the objects of a registered dataset."""
    records = DatasetCatalog.get(name)
    if hasattr(records, "object_counts"):  # which builds no dicts
        return Objects(len(records), records.object_counts().tolist())
    counts = [
        sum(not one.get("iscrowd") for one in record["annotations"])
        for record in records
        if "annotations" in record
    ]
    return Objects(len(records), counts)


def summarize(
    plan: TrainingPlan,
    checkpointer: Checkpointer,
    start_iter: int | None,
    objects: Mapping[str, Objects],
    changes: Sequence[str] = (),
) -> str:
    """Describe backbone, windows, parameters, weights, datasets and schedule of a run.

    Args:
        checkpointer: checkpointer with the model, after loading.
        start_iter: first iteration; None for an evaluation.
        objects: objects of each dataset, by its name.
        changes: options that were changed since the checkpoint that is resumed.
    """
    model, rows = checkpointer.model, [("model", type(checkpointer.model).__name__)]
    for part in (part for part in model.modules() if isinstance(part, D2SwinV2)):
        backbone = part.swinv2
        pretrained = describe(backbone.pretrained_window_sizes)
        rows += [
            ("backbone", part.variant or _own_size(backbone)),
            ("windows", _windows(backbone, checkpointer.trained_windows)),
            ("pretrained", f"windows {pretrained} (per stage, tokens)"),
        ]
    rows += [
        ("parameters", _parameters(model)),
        ("weights", checkpointer.report),
        *[("test", f"{name}: {objects[name]}; {_resolution(plan)}") for name in plan.data.test],
        ("output", plan.run.output_dir),
    ]
    if start_iter is not None:
        precision = f"{plan.precision.amp_dtype} (mixed)" if plan.precision.amp else "float32"
        rows += [
            *[("train", f"{name}: {objects[name]}") for name in plan.data.train],
            ("schedule", _schedule(plan, start_iter)),
            ("precision", precision),
            *[("changed", text) for text in changes],
        ]
    return "\n".join(f"  {title:<12} {text}" for title, text in rows)


def _resolution(plan: TrainingPlan) -> str:
    node, sizes = plan.augmentation, list(plan.evaluation.augmented_min_sizes)
    augmented = f", and augmented at {sizes}" if plan.evaluation.augmented else ""
    longest = f"longer side at most {node.test_max_size} pixels"
    return f"shorter side {node.test_min_size}, {longest}{augmented}"


def _own_size(backbone: core.SwinV2) -> str:
    depths = [len(stage.blocks) for stage in backbone.layers]
    return f"custom size: {backbone.embed_dim} channels, depths {depths}"


def _windows(backbone: core.SwinV2, trained: tuple | None) -> str:
    rule = (
        "" if backbone.small_map_rule == "per_axis" else f"; {backbone.small_map_rule} small maps"
    )
    text = f"{describe(backbone.window_sizes)} (per stage, tokens){rule}"
    if trained is None or trained[: len(backbone.layers)] == backbone.window_sizes:
        return text
    return f"{text}; the weights were trained with {describe(trained)}"


def _parameters(model: nn.Module) -> str:
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return f"{total / 1e6:.3f} M, {trainable / 1e6:.3f} M of them trainable"


def _schedule(plan: TrainingPlan, start_iter: int) -> str:
    step, optimizer = plan.step, plan.optimizer
    parts = f" in {step.accumulate} parts" if step.accumulate > 1 else ""
    ema = f", averaged with decay {step.ema_decay:g}" if step.ema else ""
    clip = plan.clipping
    clipped = f", gradients clipped at {clip.value:g} ({clip.kind})" if clip.enabled else ""
    return (
        f"iterations {start_iter} to {plan.schedule.max_iter} of {step.batch_size} images{parts}, "
        f"{optimizer.name} at {optimizer.lr:g} with weight decay {optimizer.weight_decay:g}, "
        f"{plan.schedule.name}{clipped}{ema}"
    )
