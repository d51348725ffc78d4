"""The exportable parts of a Detectron2 model: the backbone, alone or with an FPN, or the whole."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import torch
from detectron2.config import instantiate
from detectron2.modeling import (
    FPN,
    Backbone,
    GeneralizedRCNN,
    RetinaNet,
    SemanticSegmentor,
)
from detectron2.structures import ImageList
from torch import Tensor, nn

from swinv2_backbone.d2.config.lazy import load_lazy_config, plan_from_lazy
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.engine.training import factories_of
from swinv2_backbone.d2.export.detector import (
    GraphDetector,
    align_ties,
    check_detector,
    detect,
    detector_format,
    detector_outputs,
)
from swinv2_backbone.d2.export.graph import GraphSegmentor, PaddedBackbone
from swinv2_backbone.d2.modeling.backbone import D2SwinV2
from swinv2_backbone.d2.modeling.build import build_model
from swinv2_backbone.d2.modeling.image_sizes import attach_sizes
from swinv2_backbone.export.exportable import Exportable, feature_outputs
from swinv2_backbone.export.formats import Run
from swinv2_backbone.export.graph import FromPixels, GraphBackbone

# Detectron2's models with a backbone.
MetaArchitecture: TypeAlias = GeneralizedRCNN | RetinaNet | SemanticSegmentor


def load_model(
    config_file: str,
    weights: str | None,
    opts: Sequence[str] = (),
    imports: Sequence[str] = (),
) -> tuple[MetaArchitecture, str, Path]:
    """Build the model of a config on the CPU and load its weights.

    Args:
        config_file: a yacs config or a LazyConfig (.py).
        weights: the file of the weights; default: the weights of the config.
        opts: changes to the config.
        imports: other projects' code that the config needs; see :func:`load_config`.

    Returns:
        The model, its image format ("RGB", "BGR" or "BANDS"), and the local file of its weights.

    Raises:
        ValueError, OSError: no weights are given, or they do not fit the model.
    """
    if Path(config_file).suffix == ".py":
        opts = [*opts, "train.device=cpu", "train.amp.enabled=false"]
        cfg = load_lazy_config(config_file, opts, imports)
        weights, key = weights or cfg.train.init_checkpoint, "train.init_checkpoint"
        plan = plan_from_lazy(cfg)
        model, stem = factories_of(plan).model(), plan.run.stem
        image_format = instantiate(cfg.dataloader.test.mapper).image_format
    else:
        on_cpu = ("MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "False")
        cfg = load_config(config_file, [*opts, *on_cpu], imports)
        weights, key = weights or cfg.MODEL.WEIGHTS, "MODEL.WEIGHTS"
        model, stem, image_format = build_model(cfg), cfg.MODEL.SWINV2.STEM, cfg.INPUT.FORMAT
    if not weights:
        raise ValueError(f"there are no weights: give --weights FILE (or {key} in {config_file})")
    checkpointer = Checkpointer(model, stem=stem)
    checkpointer.load(weights, checkpointables=[])
    checkpointer.require_complete()
    return model.eval(), image_format, checkpointer.local_path(weights)


def exportable_part(model: MetaArchitecture, what: str, image_format: str) -> Exportable:
    """Return a part of a Detectron2 model in exportable form.

    Args:
        model: a meta-architecture with ``backbone``, ``pixel_mean`` and ``pixel_std``.
        what: a key of ``PARTS``.
        image_format: "RGB", "BGR" or "BANDS", the order of the channels.

    Raises:
        ValueError: the model has no such part, or it cannot be exported.
    """
    if what not in PARTS:
        raise ValueError(f"unknown part {what!r}; there are: {', '.join(PARTS)}")
    bottom_up = getattr(model.backbone, "bottom_up", model.backbone)
    if not isinstance(bottom_up, D2SwinV2):
        raise ValueError(f"the backbone is a {type(bottom_up).__name__}, not a SwinV2")
    graph, run, outputs = PARTS[what](model, bottom_up)
    mean, std = model.pixel_mean.flatten().tolist(), model.pixel_std.flatten().tolist()
    found = Exportable(
        model=FromPixels(graph, mean, std),
        expected=run,
        backbone=bottom_up.swinv2,
        image_format=image_format,
        mean=mean,
        std=std,
        outputs=outputs,
    )
    if what == "detector":
        return replace(found, format_of=detector_format, one_image=True, align=align_ties)
    return found


# The graph for normalized images, the original model from pixels, and a description of the outputs.
Part = tuple[nn.Module, Run, dict[str, str]]


def _backbone(model: MetaArchitecture, bottom_up: D2SwinV2) -> Part:
    graph = GraphBackbone(bottom_up.swinv2)
    return (
        graph,
        lambda images: bottom_up(_whole(_normalized(model, images))),
        feature_outputs(bottom_up.swinv2),
    )


def _fpn(model: MetaArchitecture, bottom_up: D2SwinV2) -> Part:
    if not isinstance(model.backbone, FPN):
        raise ValueError(
            f"there is no FPN on the backbone of a {type(model).__name__}: use --what backbone"
        )
    divisor = model.backbone.size_divisibility
    outputs = {
        name: f"(batch, {shape.channels}, ceil(h / {shape.stride}), ceil(w / {shape.stride})), "
        f"h and w the height and width rounded up to multiples of {divisor}"
        for name, shape in model.backbone.output_shape().items()
    }
    return _graph_of(model.backbone), lambda images: model.backbone(_batch(model, images)), outputs


def _semantic(model: MetaArchitecture, bottom_up: D2SwinV2) -> Part:
    if not isinstance(model, SemanticSegmentor):
        raise ValueError(
            f"--what semantic is for a SemanticSegmentor, not a {type(model).__name__}"
        )

    def run(images: Tensor) -> dict[str, Tensor]:
        found = model([{"image": image} for image in images])
        return {"logits": torch.stack([one["sem_seg"] for one in found])}

    graph = GraphSegmentor(_graph_of(model.backbone), model.sem_seg_head)
    return graph, run, {"logits": "(batch, classes, height, width); the class is the argmax"}


def _detector(model: MetaArchitecture, bottom_up: D2SwinV2) -> Part:
    check_detector(model)
    graph = GraphDetector(_graph_of(model.backbone), model)
    return graph, lambda images: detect(model, images), detector_outputs(model)


PARTS: dict[str, Callable[[MetaArchitecture, D2SwinV2], Part]] = {
    "backbone": _backbone,
    "backbone+fpn": _fpn,
    "semantic": _semantic,
    "detector": _detector,
}


def _graph_of(backbone: Backbone) -> nn.Module:
    """Return the backbone of a detector, with its FPN, for images that are not padded."""
    if getattr(backbone, "padding_constraints", {}).get("square_size", 0):
        raise ValueError("an FPN that pads images to squares (square_pad) cannot be exported")
    if isinstance(backbone, D2SwinV2):
        return PaddedBackbone(backbone, backbone.size_divisibility)
    bottom_up = PaddedBackbone(backbone.bottom_up, backbone.size_divisibility)
    return copy.deepcopy(backbone, {id(backbone.bottom_up): bottom_up})


def _normalized(model: MetaArchitecture, images: Tensor) -> Tensor:
    return (images - model.pixel_mean) / model.pixel_std


def _batch(model: MetaArchitecture, images: Tensor) -> Tensor:
    """Normalize and pad a batch as Detectron2 does."""
    normalized = [_normalized(model, image) for image in images]
    batch = ImageList.from_tensors(normalized, model.backbone.size_divisibility)
    return attach_sizes(batch.tensor, batch.image_sizes)


def _whole(images: Tensor) -> Tensor:
    """Attach the sizes of images that are not padded."""
    return attach_sizes(images, [images.shape[-2:]] * len(images))
