"""Exportable forms of Detectron2 models: one graph for all batch sizes, heights and widths.

As in ``swinv2_backbone.export.graph``, layers are shared with the original model, and Python
control flow is replaced by tensor operations.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinv2_backbone.d2.modeling.backbone import D2SwinV2
from swinv2_backbone.d2.modeling.upernet import PyramidPooling, UPerNetHead
from swinv2_backbone.export.graph import GraphBackbone


class PaddedBackbone(nn.Module):
    """A :class:`D2SwinV2` that pads images itself, as Detectron2 does, to multiples of ``divisor``.

    Normalized images (B, C_in, H, W), not padded -> features of the padded images.
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
    """``PyramidPooling`` as matrix products, because its cells depend on the size of the image."""

    def __init__(self, pooling: PyramidPooling):
        super().__init__()
        self.scales, self.convs = pooling.scales, pooling.convs
        self.bottleneck = pooling.bottleneck

    def forward(self, feature: Tensor) -> Tensor:
        batch, channels, height, width = feature.shape
        maps, pooled = feature.view(batch * channels, height, width), [feature]
        for scale, conv in zip(self.scales, self.convs, strict=True):
            rows, columns = (
                _averages(n, scale, feature).mT.expand(batch * channels, n, scale)
                for n in (height, width)
            )
            # Not bmm(bmm(rows.mT, maps), columns): litert-torch 0.10 drops such a transpose.
            cells = torch.bmm(torch.bmm(maps, columns).mT, rows).mT
            cells = conv(cells.reshape(batch, channels, scale, scale))
            pooled.append(F.interpolate(cells, (height, width), mode="bilinear"))
        return self.bottleneck(torch.cat(pooled, dim=1))


class GraphSegmentor(nn.Module):
    """Normalized images (B, C_in, H, W) -> {"logits": (B, K, H, W)}."""

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, _graph_head(head)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits, _ = self.head(self.backbone(images))
        height, width = images.shape[2:]
        if type(height) is int:  # a graph for one shape
            for axis, length in ((2, height), (3, width)):
                if logits.shape[axis] > length:
                    logits = logits.narrow(axis, 0, length)
            return {"logits": logits}
        # A slice would check whether the logits are as large as the image.
        for axis in (2, 3):
            inside = torch.arange(images.shape[axis], device=images.device)
            logits = logits.index_select(axis, inside)
        return {"logits": logits}


def _graph_head(head: nn.Module) -> nn.Module:
    """Copy a semantic head; replace its pyramid pooling, if any, by a :class:`GraphPooling`."""
    replaced: dict[int, nn.Module] = {}
    if isinstance(head, UPerNetHead):
        replaced[id(head.pooling)] = GraphPooling(head.pooling)
    return copy.deepcopy(head, replaced)


def _pad_end(x: Tensor, height: int, width: int) -> Tensor:
    if type(height) is int:
        # A graph for one shape.  The ONNX exporter would move a padding into the convolution behind
        # it, and OpenCV computes a convolution of 1 x 1 with padding at one side wrong.
        for axis, length in ((2, height), (3, width)):
            if length > x.shape[axis]:
                zero = x.narrow(axis, 0, 1) * 0.0
                x = torch.cat([x, *[zero] * (length - x.shape[axis])], dim=axis)
        return x
    return F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]))


def _averages(length: int, cells: int, like: Tensor) -> Tensor:
    """Return (cells, length): the matrix that averages an axis as adaptive pooling does."""
    if type(length) is int:  # a graph for one shape: the matrix is a constant
        ends = [(i * length // cells, -(-(i + 1) * length // cells)) for i in range(cells)]
        rows = [[(a <= n < b) / (b - a) for n in range(length)] for a, b in ends]
        return torch.tensor(rows, dtype=like.dtype, device=like.device)
    places = torch.arange(length, device=like.device)
    size = torch.scalar_tensor(length, dtype=torch.int64, device=like.device)
    cell = torch.arange(cells, device=like.device)[:, None]
    start, end = cell * size // cells, ((cell + 1) * size + cells - 1) // cells
    inside = (places >= start) & (places < end)
    return inside.to(like.dtype) / (end - start)
