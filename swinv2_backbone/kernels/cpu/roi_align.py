"""ROIAlign on a CPU, by the native kernel.

torchvision's takes samples of four pixels each, on one thread; its backward is a fifth of a
training step of a Mask R-CNN with SwinV2-T.  Bilinear samples averaged in bins are a product of
sums along each axis, so the kernel sums along one axis after the other, for all channels in
parallel.

Legend: B images, C channels, K boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from swinv2_backbone.kernels.cpu.native import Pooling, native
from swinv2_backbone.kernels.operator import Operator

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Arguments(NamedTuple):
    """The arguments of ``torch.ops.swinv2.roi_align``."""

    maps: Tensor  # (B, C, H, W), float32
    boxes: Tensor  # (K, 5), float32: index of the image, left, top, right, bottom
    output_size: list[int]  # rows and columns of bins
    spatial_scale: float
    sampling_ratio: int
    aligned: bool

    @property
    def pooling(self) -> Pooling:
        rows, columns = self.output_size
        return Pooling((rows, columns), self.spatial_scale, self.sampling_ratio, self.aligned)


def can_align(maps: Tensor) -> bool:
    """Return True if :func:`roi_align` can be used for maps of this dtype and device."""
    return maps.device.type == "cpu" and maps.dtype in DTYPES and native() is not None


def roi_align(maps: Tensor, boxes: Tensor, pooling: Pooling) -> Tensor:
    """Compute ``torchvision.ops.roi_align``, where :func:`can_align`.

    Args:
        maps: (B, C, H, W).
        boxes: (K, 5): index of the image, left, top, right, bottom; they get no gradient.
        pooling: the settings.

    Returns:
        (K, C, rows, columns) in the dtype of ``maps``; computed in float32.

    Raises:
        ValueError: a shape is wrong, or a box is of an image that is not in the batch.
    """
    settings = list(pooling.output_size), pooling.spatial_scale, pooling.sampling_ratio
    arguments = Arguments(maps.float(), boxes.detach().float(), *settings, pooling.aligned)
    return OPERATOR(arguments)[0].to(maps.dtype)


def _forward(a: Arguments) -> list[Tensor]:
    boxes, library = a.boxes.contiguous(), native()
    assert library is not None
    _check(a.maps, boxes)
    if len(boxes) and not 0 <= boxes[:, 0].min() <= boxes[:, 0].max() < len(a.maps):
        images = boxes[:, 0].unique().tolist()
        raise ValueError(f"there are boxes of the images {images}, but {len(a.maps)} images")
    return [library.roi_align(a.maps.contiguous(), boxes, a.pooling)]


def _check(maps: Tensor, boxes: Tensor) -> None:
    """Raise ValueError for shapes that the library would read beyond their memory."""
    if maps.dim() != 4:
        raise ValueError(f"maps must be (B, C, H, W), got {tuple(maps.shape)}")
    if boxes.dim() != 2 or boxes.shape[1] != 5:
        raise ValueError(f"boxes must be (K, 5), got {tuple(boxes.shape)}")
    if boxes.device != maps.device:
        raise ValueError(f"boxes are on {boxes.device}, maps on {maps.device}")


def _backward(grad: Tensor, saved: Sequence[Tensor], a: Arguments) -> list[Tensor]:
    library = native()
    assert library is not None
    return [library.roi_align_backward(grad, a.boxes.contiguous(), a.maps.shape, a.pooling)]


def _empty_results(a: Arguments) -> list[Tensor]:
    return [a.maps.new_empty(a.boxes.shape[0], a.maps.shape[1], *a.output_size)]


def _empty_gradients(grad: Tensor, a: Arguments) -> list[Tensor]:
    return [a.maps.new_empty(a.maps.shape)]


def _to_save(a: Arguments, activations: Sequence[Tensor]) -> Arguments:
    """Save no more of the maps than their shape."""
    return a._replace(maps=a.maps.new_zeros(()).expand(a.maps.shape))


OPERATOR = Operator(
    "roi_align",
    Arguments,
    learned=("maps",),
    forward=_forward,
    backward=_backward,
    empty_results=_empty_results,
    empty_gradients=_empty_gradients,
    to_save=_to_save,
)
