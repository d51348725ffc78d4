"""Tracing a model by torch.export."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from swinv2_backbone.export.fixed import fix_shape
from swinv2_backbone.export.formats.format import AXES, INPUT


def trace(model: nn.Module, images: Tensor, fixed: bool = False) -> ExportedProgram:
    """Trace one graph for every batch size, height and width, or for one shape.

    Args:
        model: pixels -> outputs by name, such as :class:`FromPixels`; in eval mode.
        images: any (B, C_in, H, W).
        fixed: the graph is for the shape of ``images`` alone.

    Raises:
        RuntimeError: the model cannot be traced, or specializes the graph to a size.
    """
    if fixed:
        with torch.no_grad():
            return torch.export.export(fix_shape(model, images), (images,))
    # By default PyTorch assumes that dynamic axes are longer than 1; maps of small images are not.
    import torch.fx.experimental._config as tracing

    any_length = {axis: torch.export.Dim.DYNAMIC for axis in AXES}
    # PyTorch installs ``patch`` into its config modules at run time.
    with torch.no_grad(), tracing.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        return torch.export.export(model, (images,), dynamic_shapes={INPUT: any_length})
