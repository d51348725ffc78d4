"""What can be exported of a Detectron2 model: its backbone, with an FPN, or all of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from detectron2.config import instantiate
from detectron2.modeling import FPN, SemanticSegmentor, build_model
from detectron2.structures import ImageList
from torch import Tensor, nn

from swinv2_backbone.d2.config.lazy import load_lazy_config
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.engine import lazy
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.export.detector import (
    GraphDetector,
    check_detector,
    detect,
    detector_format,
    detector_outputs,
)
from swinv2_backbone.d2.modeling.backbone import D2SwinV2
from swinv2_backbone.d2.modeling.upernet import PyramidPooling, UPerNetHead
from swinv2_backbone.export.exportable import Exportable, feature_outputs
from swinv2_backbone.export.graph import FromPixels, GraphBackbone


class PaddedBackbone(nn.Module):
    """What a :class:`D2SwinV2` gives for images that Detectron2 pads to multiples of ``divisor``.

    (B, C_in, H, W), normalised and not padded -> features of the padded images.
    """

    def __init__(self, backbone: D2SwinV2, divisor: int):
        super().__init__()
        self.graph = GraphBackbone(backbone.swinv2)
        self.strides = dict(backbone.swinv2.strides)
        self.mask_padding = backbone.mask_padding
        self.divisor = max(divisor, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        height, width = (self._padded(length) for length in images.shape[-2:])
        if not self.mask_padding:
            return self.graph(_pad_end(images, height, width))
        features = self.graph(images)
        if self.divisor > 1:  # a multiple of all strides
            for name, stride in self.strides.items():
                features[name] = _pad_end(features[name], height // stride, width // stride)
        return features

    def _padded(self, length: int) -> int:
        return (length + self.divisor - 1) // self.divisor * self.divisor


class GraphPooling(nn.Module):
    """``PyramidPooling`` for a graph: averages as products, as cells depend on the size."""

    def __init__(self, pooling: PyramidPooling):
        super().__init__()
        self.scales, self.convs, self.bottleneck = (
            *(pooling.scales, pooling.convs, pooling.bottleneck),
        )

    def forward(self, feature: Tensor) -> Tensor:
        batch, channels, height, width = feature.shape
        maps, pooled = feature.view(batch * channels, height, width), [feature]
        for scale, conv in zip(self.scales, self.convs, strict=True):
            rows, columns = (
                _averages(n, scale, feature).expand(batch * channels, scale, n)
                for n in (height, width)
            )
            cells = torch.bmm(torch.bmm(rows, maps), columns.mT)
            cells = conv(cells.view(batch, channels, scale, scale))
            pooled.append(F.interpolate(cells, (height, width), mode="bilinear"))
        return self.bottleneck(torch.cat(pooled, dim=1))


class GraphSegmentor(nn.Module):
    """(B, C_in, H, W), normalised -> {"logits": (B, K, H, W)}."""

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits, _ = self.head(self.backbone(images))
        # A slice would ask whether the logits are as large as the image.
        for axis in (2, 3):
            inside = torch.arange(images.shape[axis], device=images.device)
            logits = logits.index_select(axis, inside)
        return {"logits": logits}


def load_model(
    config_file: str, weights: str | None, opts: Sequence[str] = ()
) -> tuple[nn.Module, str, Path]:
    """The model of a config on the CPU, the order of its channels, and the file of its weights.

    Args:
        config_file: a yacs config or a LazyConfig (.py).
        weights: instead of the config's own.
        opts: changes of config keys.

    Raises:
        ValueError, OSError: there are no weights, or they do not fit.
    """
    if Path(config_file).suffix == ".py":
        cfg = load_lazy_config(config_file, [*opts, "train.device=cpu", "train.amp.enabled=false"])
        weights, key = weights or cfg.train.init_checkpoint, "train.init_checkpoint"
        model = lazy.build_model(cfg)
        image_format = instantiate(cfg.dataloader.test.mapper).image_format
    else:
        on_cpu = ("MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "False")
        cfg = load_config(config_file, [*opts, *on_cpu])
        weights, key = weights or cfg.MODEL.WEIGHTS, "MODEL.WEIGHTS"
        model, image_format = build_model(cfg), cfg.INPUT.FORMAT
    if not weights:
        raise ValueError(f"there are no weights: give --weights FILE (or {key} in {config_file})")
    checkpointer = Checkpointer(model)
    checkpointer.load(weights, checkpointables=[])
    checkpointer.require_complete()
    return model.eval(), image_format, checkpointer.local_path(weights)


def exportable_part(model: nn.Module, what: str, image_format: str) -> Exportable:
    """A part of a Detectron2 model.

    Args:
        model: with ``backbone``, ``pixel_mean`` and ``pixel_std``.
        what: a key of ``PARTS``.

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
    graph, numbers = FromPixels(graph, mean, std), (image_format, mean, std)
    if what == "detector":
        one = dict(format_of=detector_format, one_image=True)
        return Exportable(graph, run, bottom_up.swinv2, *numbers, outputs, **one)
    return Exportable(graph, run, bottom_up.swinv2, *numbers, outputs)


Part = tuple[nn.Module, Callable[[Tensor], dict[str, Tensor]], dict[str, str]]


def _backbone(model: nn.Module, bottom_up: D2SwinV2) -> Part:
    graph = GraphBackbone(bottom_up.swinv2)
    return (
        graph,
        lambda images: bottom_up(_normalised(model, images)),
        feature_outputs(bottom_up.swinv2),
    )


def _fpn(model: nn.Module, bottom_up: D2SwinV2) -> Part:
    if not isinstance(model.backbone, FPN):
        raise ValueError(
            f"there is no FPN on the backbone of a {type(model).__name__}: take --what backbone"
        )
    divisor = model.backbone.size_divisibility
    outputs = {
        name: f"(batch, {shape.channels}, ceil(h / {shape.stride}), ceil(w / {shape.stride})), "
        f"h and w the height and width rounded up to multiples of {divisor}"
        for name, shape in model.backbone.output_shape().items()
    }
    return _graph_of(model.backbone), lambda images: model.backbone(_batch(model, images)), outputs


def _semantic(model: nn.Module, bottom_up: D2SwinV2) -> Part:
    if not isinstance(model, SemanticSegmentor):
        raise ValueError(
            f"--what semantic is for a SemanticSegmentor, not a {type(model).__name__}"
        )
    head, replaced = model.sem_seg_head, {}
    if isinstance(head, UPerNetHead):
        replaced[id(head.pooling)] = GraphPooling(head.pooling)

    def run(images: Tensor) -> dict[str, Tensor]:
        found = model([{"image": image} for image in images])
        return {"logits": torch.stack([one["sem_seg"] for one in found])}

    graph = GraphSegmentor(_graph_of(model.backbone), copy.deepcopy(head, replaced))
    return graph, run, {"logits": "(batch, classes, height, width); the class is the argmax"}


def _detector(model: nn.Module, bottom_up: D2SwinV2) -> Part:
    check_detector(model)
    graph = GraphDetector(_graph_of(model.backbone), model)
    return graph, lambda images: detect(model, images), detector_outputs(model)


PARTS: dict[str, Callable[[nn.Module, D2SwinV2], Part]] = {
    "backbone": _backbone,
    "backbone+fpn": _fpn,
    "semantic": _semantic,
    "detector": _detector,
}


def _graph_of(backbone: nn.Module) -> nn.Module:
    """The backbone of a detector, an FPN's with the FPN, for images that are not padded."""
    if getattr(backbone, "padding_constraints", {}).get("square_size", 0):
        raise ValueError("an FPN that pads images to squares (square_pad) cannot be exported")
    if isinstance(backbone, D2SwinV2):
        return PaddedBackbone(backbone, backbone.size_divisibility)
    bottom_up = PaddedBackbone(backbone.bottom_up, backbone.size_divisibility)
    return copy.deepcopy(backbone, {id(backbone.bottom_up): bottom_up})


def _normalised(model: nn.Module, images: Tensor) -> Tensor:
    return (images - model.pixel_mean) / model.pixel_std


def _batch(model: nn.Module, images: Tensor) -> Tensor:
    """What Detectron2 gives its backbones: normalised images, padded."""
    images = [_normalised(model, image) for image in images]
    return ImageList.from_tensors(images, model.backbone.size_divisibility).tensor


def _pad_end(x: Tensor, height: int, width: int) -> Tensor:
    return F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]))


def _averages(length: int, cells: int, like: Tensor) -> Tensor:
    """(cells, length): by what an axis is multiplied for the averages of adaptive pooling."""
    places = torch.arange(length, device=like.device)
    length = torch.scalar_tensor(length, dtype=torch.int64, device=like.device)
    cell = torch.arange(cells, device=like.device)[:, None]
    start, end = cell * length // cells, ((cell + 1) * length + cells - 1) // cells
    inside = (places >= start) & (places < end)
    return inside.to(like.dtype) / (end - start)
