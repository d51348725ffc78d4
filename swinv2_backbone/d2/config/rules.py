"""Validation of a plan: each value by itself, then the rules between options.

All errors are reported at once, each with its key in the dialect of the config.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from detectron2.utils import comm

from swinv2_backbone.d2.config import bands
from swinv2_backbone.d2.config.options import Dialect
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.config.sections import OPTIONS

Rule = Callable[[TrainingPlan], Iterator[str]]
AUGMENTED = ("GeneralizedRCNN", "SemanticSegmentor")  # architectures with test-time augmentation


class ConfigError(ValueError):
    """Raised for an invalid config; the message lists every error.

    Attributes:
        faults: the error messages.
    """

    def __init__(self, faults: Sequence[str]):
        self.faults = list(faults)
        text = self.faults[0] if len(self.faults) == 1 else ""
        super().__init__(
            text or f"{len(self.faults)} errors in the config:\n- " + "\n- ".join(self.faults)
        )


def validate(plan: TrainingPlan) -> TrainingPlan:
    """Return the plan if it is valid.

    Raises:
        ConfigError: the plan is invalid; the message lists all errors in the config's dialect.
    """
    wrong = {
        name: f"{plan.key(name)} must be {expected}, got {plan[name]!r}"
        for name, option in OPTIONS.items()
        if (expected := option.check(plan[name]))
    }
    faults = [*plan.unreadable, *wrong.values()]
    for options, rule in RULES:
        if not wrong.keys() & set(options):  # a rule may assume that its options are valid
            faults += rule(plan)
    if faults:
        raise ConfigError(faults)
    return plan


def validate_processes(plan: TrainingPlan) -> None:
    """Raise ConfigError if the plan does not suit the number of processes.

    This is separate from ``validate``, because a single process may load the config of a run with
    several processes, for prediction.
    """
    if faults := list(_several_processes(plan)):
        raise ConfigError(faults)


# ---- Rules: each yields one message per error


def _optimizer(plan: TrainingPlan) -> Iterator[str]:
    if plan.dialect is Dialect.YACS and plan.optimizer.name not in ("ADAMW", "SGD"):
        key, got = plan.key("optimizer.name"), plan.optimizer.name
        yield f"{key} must be one of ADAMW, SGD, got {got!r}"


def _device(plan: TrainingPlan) -> Iterator[str]:
    device, amp, dtype = plan.precision.device, plan.precision.amp, plan.precision.amp_dtype
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        yield f"{plan.key('precision.device')} {device!r}: {error}"
        return
    if kind == "cuda" and not torch.cuda.is_available():
        yield (
            f"{plan.key('precision.device')} is {device!r}, but PyTorch finds no GPU; "
            f"to run on the CPU, add: {plan.setting('precision.device', 'cpu')}"
        )
    if amp and kind == "cpu" and dtype == "float16":
        yield (
            f"{plan.setting('precision.amp_dtype', dtype)} requires a GPU; "
            f"on the CPU, use {plan.setting('precision.amp_dtype', 'bfloat16')}"
        )


def _accumulation(plan: TrainingPlan) -> Iterator[str]:
    parts, batch = plan.step.accumulate, plan.step.batch_size
    if batch % parts:
        key = plan.key("step.accumulate")
        yield f"{key} {parts} must divide {plan.key('step.batch_size')} {batch}"


def _sharding(plan: TrainingPlan) -> Iterator[str]:
    sharding, key = plan.step.sharding, plan.key("step.sharding")
    if sharding == "all" and plan.step.ema:
        off = plan.setting("step.ema", False)
        yield (
            f'{key} "all" does not support the average of the weights: set {off}, or '
            f"{plan.setting('step.sharding', 'optimizer')}"
        )
    if sharding == "all" and plan.precision.amp and plan.precision.amp_dtype == "float16":
        yield (
            f'{key} "all" does not support gradient scaling: set '
            f"{plan.setting('precision.amp_dtype', 'bfloat16')}, or "
            f"{plan.setting('step.sharding', 'none')}"
        )


def _average(plan: TrainingPlan) -> Iterator[str]:
    if plan.step.ema and plan.evaluation.precise_bn:
        yield (
            f"{plan.key('evaluation.precise_bn')} updates the trained model, not the average of "
            f"its weights: set {plan.setting('step.ema', False)} or "
            f"{plan.setting('evaluation.precise_bn', False)}"
        )


def _proposals(plan: TrainingPlan) -> Iterator[str]:
    if plan.model.load_proposals and not plan.data.unsafe_proposals:
        yield (
            f"{plan.key('model.load_proposals')} reads pickles, which can run code: set it to "
            "False, or, if you trust their source, set "
            f"{plan.setting('data.unsafe_proposals', True)}"
        )


def _jitter(plan: TrainingPlan) -> Iterator[str]:
    node = plan.augmentation
    if not node.lsj:
        return
    if node.lsj_min_scale > node.lsj_max_scale:
        yield (
            f"{plan.key('augmentation.lsj_min_scale')} {node.lsj_min_scale} must not exceed "
            f"{plan.key('augmentation.lsj_max_scale')} {node.lsj_max_scale}"
        )
    if node.crop and plan.dialect is Dialect.YACS:  # a LazyConfig lists its augmentations in order
        off = plan.setting("augmentation.crop", False)
        yield f"{plan.key('augmentation.lsj')} already crops: set {off}"


def _sizes(plan: TrainingPlan) -> Iterator[str]:
    node, key = plan.augmentation, plan.key("augmentation.min_size")
    if node.lsj:
        return
    if not node.min_size:
        yield f"{key} must have at least one length"
    elif node.sample_style == "range" and len(node.min_size) != 2:
        style = plan.setting("augmentation.sample_style", "range")
        yield f"{key} must be (shortest, longest) with {style}, got {node.min_size!r}"


def _crop(plan: TrainingPlan) -> Iterator[str]:
    node = plan.augmentation
    if not node.crop:
        return
    if node.crop_type.startswith("absolute"):
        expected, fits = "whole pixels", all(isinstance(size, int) for size in node.crop_size)
    else:
        expected, fits = "at most 1", all(size <= 1 for size in node.crop_size)
    if not fits:
        key, kind = plan.key("augmentation.crop_size"), plan.key("augmentation.crop_type")
        yield f"{key} must be {expected} with {kind} {node.crop_type}, got {node.crop_size!r}"


def _early_stopping(plan: TrainingPlan) -> Iterator[str]:
    period, length = plan.evaluation.period, plan.schedule.max_iter
    if plan.evaluation.early_stopping_metric and not 0 < period < length:
        yield (
            f"{plan.key('evaluation.early_stopping_metric')} needs evaluations before the end: set "
            f"{plan.key('evaluation.period')} to at least 1 and less than "
            f"{plan.key('schedule.max_iter')} {length}, got {period}"
        )


def _detections(plan: TrainingPlan) -> Iterator[str]:
    dense = plan.model.architecture in ("RetinaNet", "FCOS")
    if dense and plan.evaluation.detections_per_image < 0:
        yield (
            f"{plan.key('evaluation.detections_per_image')} must be at least 1 for "
            f"{plan.model.architecture}, whose last detection would be dropped, got "
            f"{plan.evaluation.detections_per_image}"
        )


def _augmented_test(plan: TrainingPlan) -> Iterator[str]:
    if not plan.evaluation.augmented:
        return
    key, name = plan.key("evaluation.augmented"), plan.model.architecture
    if name not in AUGMENTED:
        yield (
            f"{key} supports {' and '.join(AUGMENTED)}, not {plan.key('model.architecture')} {name}"
        )
    if plan.model.keypoints:
        off = plan.setting("evaluation.augmented", False)
        yield f"{key} does not support keypoints: set {off}"


def _several_processes(plan: TrainingPlan) -> Iterator[str]:
    if plan.step.sharding != "none" and comm.get_world_size() == 1:
        yield (
            f"{plan.key('step.sharding')} {plan.step.sharding!r} needs several processes: set "
            f"{plan.setting('step.sharding', 'none')}"
        )


RULES: list[tuple[Sequence[str], Rule]] = [
    (bands.OPTIONS, bands.check_bands),
    (["optimizer.name"], _optimizer),
    (["precision.device", "precision.amp", "precision.amp_dtype"], _device),
    (["step.accumulate", "step.batch_size"], _accumulation),
    (["step.sharding", "step.ema", "precision.amp", "precision.amp_dtype"], _sharding),
    (["step.ema", "evaluation.precise_bn"], _average),
    (["model.load_proposals", "data.unsafe_proposals"], _proposals),
    (["augmentation.lsj", "augmentation.lsj_min_scale", "augmentation.lsj_max_scale"], _jitter),
    (["augmentation.lsj", "augmentation.min_size", "augmentation.sample_style"], _sizes),
    (["augmentation.crop", "augmentation.crop_type", "augmentation.crop_size"], _crop),
    (
        ["evaluation.early_stopping_metric", "evaluation.period", "schedule.max_iter"],
        _early_stopping,
    ),
    (["evaluation.detections_per_image", "model.architecture"], _detections),
    (["evaluation.augmented", "model.architecture", "model.keypoints"], _augmented_test),
]
