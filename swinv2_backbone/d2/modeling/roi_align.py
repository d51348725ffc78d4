"""Detectron2's ROIAlign, computed by the native kernel on a CPU."""

from __future__ import annotations

import torch
import torchvision
from detectron2.layers import ROIAlign
from torch import Tensor, nn

from swinv2_backbone.kernels.choose import is_traced
from swinv2_backbone.kernels.cpu.native import Pooling
from swinv2_backbone.kernels.cpu.roi_align import can_align, roi_align


class NativeROIAlign(ROIAlign):
    """ROIAlign with the same results, several times as fast on a CPU.

    A compiled, scripted, traced or exported model has torchvision's operator.
    """

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """(B, C, H, W), (K, 5) -> (K, C, rows, columns)."""
        if not torch.jit.is_scripting():  # TorchScript does not read this branch
            found = _aligned(self, input, rois)
            if found is not None:
                return found
        if input.is_quantized:
            input = input.dequantize()
        rois, scale = rois.to(dtype=input.dtype), self.spatial_scale
        return torchvision.ops.roi_align(
            input, rois, self.output_size, scale, self.sampling_ratio, self.aligned
        )


def _aligned(module: ROIAlign, maps: Tensor, boxes: Tensor) -> Tensor | None:
    """Compute ROIAlign by the native kernel where it can be used, else return None."""
    if is_traced() or torch.compiler.is_compiling() or not can_align(maps):
        return None
    size, ratio = module.output_size, max(module.sampling_ratio, 0)
    rows, columns = (size, size) if isinstance(size, int) else size
    return roi_align(
        maps, boxes, Pooling((rows, columns), module.spatial_scale, ratio, module.aligned)
    )


def with_native_roi_align(model: nn.Module) -> nn.Module:
    """Replace every ``ROIAlign`` in a model by :class:`NativeROIAlign`, and return the model."""
    for part in model.modules():
        if type(part) is ROIAlign:
            part.__class__ = NativeROIAlign  # in place, so that its hooks stay
    return model
