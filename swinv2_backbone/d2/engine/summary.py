"""What a run is about to do, in a few lines, before its first iteration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from torch import nn

from swinv2_backbone import backbone as core
from swinv2_backbone.checkpoints.pretrained_window import describe
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.modeling.backbone import D2SwinV2


@dataclass(frozen=True)
class Training:
    """What the summary says of a training, whichever config system describes it."""

    datasets: Sequence[str]
    start_iter: int
    max_iter: int
    batch: int  # images of a step
    accumulate: int
    optimizer: str
    lr: float
    schedule: str
    precision: str
    ema: float | None


def summarise(
    model: nn.Module,
    checkpointer: Checkpointer,
    *,
    tested: Sequence[str],
    resolution: str,
    output: str,
    training: Training | None = None,
) -> str:
    """Backbone, windows and normalisers, parameters, weights, datasets and schedule of a run.

    Args:
        checkpointer: knows what was loaded, and with which windows that was trained.
        tested: datasets.
        resolution: of test images, in words.
        training: None for an evaluation.
    """
    rows = [("model", type(model).__name__)]
    for part in (part for part in model.modules() if isinstance(part, D2SwinV2)):
        backbone = part.swinv2
        rows += [
            ("backbone", part.variant or _own_size(backbone)),
            ("windows", _windows(backbone, checkpointer.trained_windows)),
            ("normalisers", f"{describe(backbone.pretrained_window_sizes)} (per stage, tokens)"),
        ]
    rows += [
        ("parameters", _parameters(model)),
        ("weights", checkpointer.report),
        *[("test", f"{_dataset(name)}; {resolution}") for name in tested],
        ("output", output),
    ]
    if training is not None:
        rows += [
            *[("train", _dataset(name)) for name in training.datasets],
            ("schedule", _schedule(training)),
            ("precision", training.precision),
        ]
    return "\n".join(f"  {title:<12} {text}" for title, text in rows)


def summarise_config(
    cfg: CfgNode, model: nn.Module, checkpointer: Checkpointer, start_iter: int | None = None
) -> str:
    """:func:`summarise` for a yacs config; without a ``start_iter`` it is an evaluation."""
    solver, amp, training = cfg.SOLVER, cfg.SOLVER.AMP, None
    if start_iter is not None:
        training = Training(
            datasets=cfg.DATASETS.TRAIN,
            start_iter=start_iter,
            max_iter=solver.MAX_ITER,
            batch=solver.IMS_PER_BATCH,
            accumulate=solver.ACCUMULATE,
            optimizer=solver.OPTIMIZER,
            lr=solver.BASE_LR,
            schedule=solver.LR_SCHEDULER_NAME,
            precision=f"{amp.DTYPE} (mixed)" if amp.ENABLED else "float32",
            ema=solver.EMA.DECAY if solver.EMA.ENABLED else None,
        )
    augmented = f", and augmented at {list(cfg.TEST.AUG.MIN_SIZES)}" * cfg.TEST.AUG.ENABLED
    return summarise(
        model,
        checkpointer,
        tested=cfg.DATASETS.TEST,
        resolution=f"short side {cfg.INPUT.MIN_SIZE_TEST}, long at most "
        f"{cfg.INPUT.MAX_SIZE_TEST} pixels{augmented}",
        output=cfg.OUTPUT_DIR,
        training=training,
    )


def _own_size(backbone: core.SwinV2) -> str:
    depths = [len(stage.blocks) for stage in backbone.layers]
    channels = backbone.patch_embed.proj.out_channels
    return f"own size: {channels} channels, depths {depths}"


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


def _schedule(training: Training) -> str:
    parts = f" in {training.accumulate} parts" if training.accumulate > 1 else ""
    ema = f", averaged with decay {training.ema:g}" if training.ema else ""
    return (
        f"iterations {training.start_iter} to {training.max_iter} of {training.batch} "
        f"images{parts}, {training.optimizer} at {training.lr:g}, {training.schedule}{ema}"
    )
