"""What a run is about to do, in a few lines, before its first iteration."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from torch import nn

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.windows import Size


def summarise(cfg: CfgNode, model: nn.Module, loaded: str, start_iter: int | None = None) -> str:
    """Variant, windows and normalisers, parameters, weights, datasets and schedule of a run.

    Without a ``start_iter`` it is an evaluation: no training set, no schedule.
    """
    rows = [("model", f"{cfg.MODEL.META_ARCHITECTURE} on {cfg.MODEL.BACKBONE.NAME}")]
    for backbone in (m for m in model.modules() if isinstance(m, SwinV2)):
        rows += [
            ("backbone", cfg.MODEL.SWINV2.VARIANT or _own_size(cfg)),
            ("windows", _sizes(backbone.window_sizes)),
            ("normalisers", _sizes(backbone.pretrained_window_sizes)),
        ]
    rows += [
        ("parameters", _parameters(model)),
        ("weights", loaded),
        *[("test", _dataset(name)) for name in cfg.DATASETS.TEST],
        ("output", cfg.OUTPUT_DIR),
    ]
    if start_iter is not None:
        amp = cfg.SOLVER.AMP
        rows += [
            *[("train", _dataset(name)) for name in cfg.DATASETS.TRAIN],
            ("schedule", _schedule(cfg, start_iter)),
            ("precision", f"{amp.DTYPE} (mixed)" if amp.ENABLED else "float32"),
        ]
    return "\n".join(f"  {title:<12} {text}" for title, text in rows)


def _own_size(cfg: CfgNode) -> str:
    node = cfg.MODEL.SWINV2
    return (
        f"own size: {node.EMBED_DIM} channels, depths {tuple(node.DEPTHS)}, "
        f"heads {tuple(node.NUM_HEADS)}"
    )


def _sizes(sizes: tuple[Size, ...]) -> str:
    return ", ".join(str(h) if h == w else f"{h}x{w}" for h, w in sizes) + " (per stage, tokens)"


def _parameters(model: nn.Module) -> str:
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return f"{total / 1e6:.3f} M, {trainable / 1e6:.3f} M of them trainable"


def _dataset(name: str) -> str:
    images = DatasetCatalog.get(name)
    instances = sum(len(image.get("annotations", ())) for image in images)
    empty = sum(not image.get("annotations") for image in images)
    return f"{name}: {len(images)} images ({empty} without objects), {instances} objects"


def _schedule(cfg: CfgNode, start_iter: int) -> str:
    solver = cfg.SOLVER
    return (
        f"iterations {start_iter} to {solver.MAX_ITER} of {solver.IMS_PER_BATCH} images, "
        f"{solver.OPTIMIZER} at {solver.BASE_LR:g}, {solver.LR_SCHEDULER_NAME}"
    )
