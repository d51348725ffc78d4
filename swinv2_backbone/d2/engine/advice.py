"""Warnings about limits and sizes that do not suit the data, and about keys without effect."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from swinv2_backbone.d2.config.lazy_parts import resizes
from swinv2_backbone.d2.config.options import Dialect
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.config.yacs import MASK_CLASSIFIERS, keys_without_effect
from swinv2_backbone.d2.data.loading.mask_targets import TASKS
from swinv2_backbone.precision import supports_bf16

LIMITS = ("evaluation.detections_per_image", "evaluation.proposals_per_image")
ROOM = 1.2  # detections per object, because some are wrong
NEAR, FAR = 1.1, 2.0  # ratios of sizes


def advice(plan: TrainingPlan, objects: Mapping[str, Sequence[int]]) -> list[str]:
    """Return the warnings about a run, each with its remedy.

    Args:
        objects: the number of objects in each image, by the names of the datasets of the run.
    """
    dense = [text for name, counts in objects.items() for text in _dense(plan, name, counts)]
    foreign = [*_mask_targets(plan), *_foreign_keys(plan)]
    own = [*_precision(plan), *_rate(plan)]
    return [*foreign, *own, *dense, *_augmented_sizes(plan), *_test_size(plan)]


def _rate(plan: TrainingPlan) -> Iterator[str]:
    """Warn of a learning rate with which AdamW diverges."""
    rate = plan.optimizer.lr
    if rate > 1 and "adam" in plan.optimizer.name.lower():
        yield (
            f"{plan.key('optimizer.lr')} {rate:g}: AdamW changes a weight by about the learning "
            "rate in every step, so that a rate above 1 makes a training diverge; usual rates are "
            "1e-5 to 1e-3"
        )


def _precision(plan: TrainingPlan) -> Iterator[str]:
    """Warn of bfloat16 on a CPU that can only emulate its products."""
    if plan.precision.amp and plan.precision.device == "cpu" and not supports_bf16():
        yield (
            f"{plan.setting('precision.amp', True)}: this processor has no instructions for "
            "bfloat16, so that mixed precision is slower than float32: set "
            f"{plan.setting('precision.amp', False)}"
        )


def _mask_targets(plan: TrainingPlan) -> Iterator[str]:
    """Warn of a model that needs other targets than Detectron2's; a mapper may make them too."""
    if plan.model.architecture in MASK_CLASSIFIERS and plan.data.mask_targets == "none":
        yield (
            f"{plan.key('model.architecture')} {plan.model.architecture} is trained on masks: set "
            f"{plan.key('data.mask_targets')} to its task, one of {', '.join(TASKS)}"
        )


def _foreign_keys(plan: TrainingPlan) -> Iterator[str]:
    """Name the keys of another project that only its own trainer and mappers read."""
    ignored = keys_without_effect(plan.config) if plan.dialect is Dialect.YACS else {}
    if ignored:
        listed = ", ".join(f"{key} {value!r}" for key, value in ignored.items())
        yield f"this trainer does not read these keys of another project (its model may): {listed}"


def _dense(plan: TrainingPlan, name: str, counts: Sequence[int]) -> Iterator[str]:
    """Warn of images with more objects than the model returns detections."""
    limits = {option: plan[option] for option in LIMITS if plan.key(option)}
    limits = {option: value for option, value in limits.items() if value > 0}
    most, limit = max(counts, default=0), min(limits.values(), default=math.inf)
    if most <= limit:
        return
    # Rounded up to hundreds, with room for wrong detections; proposals have no class yet.
    wanted = 100 * math.ceil(ROOM * most / 100)
    needed = dict(zip(LIMITS, (wanted, 2 * wanted)))
    remedy = [
        plan.setting(option, needed[option]) for option, value in limits.items() if value < wanted
    ]
    keys = " and ".join(plan.key(option) for option, value in limits.items() if value < most)
    over = sum(count > limit for count in counts)
    yield (
        f"{name}: {over} of {len(counts)} images have more than {limit} objects (at most {most}), "
        f"but the model returns at most {limit} detections per image ({keys}): set "
        f"{' '.join(remedy)}"
    )


def _augmented_sizes(plan: TrainingPlan) -> Iterator[str]:
    """Warn if none of the sizes of test-time augmentation is near those of training."""
    trained = training_sizes(plan) if plan.evaluation.augmented else None
    if trained is None:
        return
    (least, most), sizes = trained, plan.evaluation.augmented_min_sizes
    near = any(least / NEAR <= size <= most * NEAR for size in sizes)
    if near and all(least / FAR <= size <= most * FAR for size in sizes):
        return
    tested = plan.augmentation.test_min_size
    middle = tested if least <= tested <= most else _middle(least, most)
    better = [round(share * middle) for share in (0.8, 1, 1.2)]
    key = plan.key("evaluation.augmented_min_sizes")
    setting = plan.setting("evaluation.augmented_min_sizes", str(better).replace(" ", ""))
    yield (
        f"{key} {list(sizes)}: shorter sides far from those of training ({_range(least, most)} "
        f"pixels) can make the augmented results worse than the plain ones: set {setting}"
    )


def _test_size(plan: TrainingPlan) -> Iterator[str]:
    """Warn if the test images are far smaller or larger than those of training."""
    trained, size = training_sizes(plan), plan.augmentation.test_min_size
    if trained is None or not size or not _resizes(plan, "test"):
        return
    least, most = trained
    if not least / FAR <= size <= most * FAR:
        setting = plan.setting("augmentation.test_min_size", _middle(least, most))
        yield (
            f"{plan.key('augmentation.test_min_size')} {size}: a shorter side far from those of "
            f"training ({_range(least, most)} pixels): set {setting}"
        )


def training_sizes(plan: TrainingPlan) -> tuple[float, float] | None:
    """Return the range of the shorter side in training; None if the config does not state it."""
    node = plan.augmentation
    if not _resizes(plan, "train"):
        return None
    if node.lsj:
        return node.lsj_min_scale * node.lsj_size, node.lsj_max_scale * node.lsj_size
    if not all(node.min_size):  # images keep their size
        return None
    enlarged = node.crop and plan.model.architecture != "SemanticSegmentor"  # crops are resized
    return min(node.min_size), math.inf if enlarged else max(node.min_size)


def _resizes(plan: TrainingPlan, split: str) -> bool:
    """Return True if the images of a split are resized as the plan says."""
    return plan.dialect is Dialect.YACS or resizes(plan.config, split)


def _middle(least: float, most: float) -> int:
    return round(math.sqrt(least * (FAR * least if most == math.inf else most)))


def _range(least: float, most: float) -> str:
    if most == math.inf:
        return f"{least:g} and more"
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"
