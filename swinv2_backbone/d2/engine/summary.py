"""A summary of a run, printed before its first iteration."""

from __future__ import annotations

from detectron2.data import DatasetCatalog
from torch import nn

from swinv2_backbone import backbone as core
from swinv2_backbone.checkpoints.pretrained_window import describe
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.modeling.backbone import D2SwinV2


def summarize(plan: TrainingPlan, checkpointer: Checkpointer, start_iter: int | None) -> str:
    """Describe backbone, windows, parameters, weights, datasets and schedule of a run.

    Args:
        checkpointer: checkpointer with the model, after loading.
        start_iter: None for an evaluation.
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
        *[("test", f"{_dataset(name)}; {_resolution(plan)}") for name in plan.data.test],
        ("output", plan.run.output_dir),
    ]
    if start_iter is not None:
        precision = f"{plan.precision.amp_dtype} (mixed)" if plan.precision.amp else "float32"
        rows += [
            *[("train", _dataset(name)) for name in plan.data.train],
            ("schedule", _schedule(plan, start_iter)),
            ("precision", precision),
        ]
    return "\n".join(f"  {title:<12} {text}" for title, text in rows)


def _resolution(plan: TrainingPlan) -> str:
    node, sizes = plan.augmentation, list(plan.evaluation.augmented_min_sizes)
    augmented = f", and augmented at {sizes}" if plan.evaluation.augmented else ""
    longest = f"longer side at most {node.test_max_size} pixels"
    return f"shorter side {node.test_min_size}, {longest}{augmented}"


def _own_size(backbone: core.SwinV2) -> str:
    depths = [len(stage.blocks) for stage in backbone.layers]
    channels = backbone.patch_embed.proj.out_channels
    return f"custom size: {channels} channels, depths {depths}"


def _windows(backbone: core.SwinV2, trained: tuple | None) -> str:
    text = f"{describe(backbone.window_sizes)} (per stage, tokens)"
    if trained is None or trained[: len(backbone.layers)] == backbone.window_sizes:
        return text
    return f"{text}; the weights were trained with {describe(trained)}"


def _parameters(model: nn.Module) -> str:
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return f"{total / 1e6:.3f} M, {trainable / 1e6:.3f} M of them trainable"


def _dataset(name: str) -> str:
    images = DatasetCatalog.get(name)
    text = f"{name}: {len(images)} images"
    if images and "annotations" in images[0]:
        objects = sum(len(image["annotations"]) for image in images)
        empty = sum(not image["annotations"] for image in images)
        text += f" ({empty} without objects), {objects} objects"
    return text


def _schedule(plan: TrainingPlan, start_iter: int) -> str:
    step, optimizer = plan.step, plan.optimizer
    parts = f" in {step.accumulate} parts" if step.accumulate > 1 else ""
    ema = f", averaged with decay {step.ema_decay:g}" if step.ema else ""
    return (
        f"iterations {start_iter} to {plan.schedule.max_iter} of {step.batch_size} images{parts}, "
        f"{optimizer.name} at {optimizer.lr:g}, {plan.schedule.name}{ema}"
    )
