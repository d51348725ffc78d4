"""Tracing a model by torch.export."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

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
            program = torch.export.export(fix_shape(model, images), (images,))
        _repeat_single_lines(program)
        return program
    # By default PyTorch assumes that dynamic axes are longer than 1; maps of small images are not.
    import torch.fx.experimental._config as tracing

    any_length = {axis: torch.export.Dim.DYNAMIC for axis in AXES}
    # PyTorch installs ``patch`` into its config modules at run time.
    with torch.no_grad(), tracing.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        return torch.export.export(model, (images,), dynamic_shapes={INPUT: any_length})


def _repeat_single_lines(program: ExportedProgram) -> None:
    """Resize maps of one row or column by repeating it, which is what bilinear resizing does.

    OpenCV 5.0 interpolates such maps with whatever follows them in memory.
    """
    graph = program.graph_module.graph
    for resize in graph.find_nodes(
        op="call_function", target=torch.ops.aten.upsample_bilinear2d.vec
    ):
        maps, _, align_corners, _ = resize.args
        size = resize.meta["val"].shape[2:]
        for axis, length in enumerate(size, 2):
            if maps.meta["val"].shape[axis] == 1:
                with graph.inserting_before(resize):
                    maps = _repeated(maps, length, axis)
        resize.args = (maps, [*size], align_corners, None)
        if maps.meta["val"].shape[2:] == size:
            resize.replace_all_uses_with(maps)
            graph.erase_node(resize)
    program.graph_module.recompile()


def _repeated(maps: Node, times: int, axis: int) -> Node:
    """Add the concatenation of ``times`` copies of a value along an axis to its graph."""
    found = maps.graph.call_function(torch.ops.aten.cat.default, ([maps] * times, axis))
    found.meta["val"] = torch.cat([maps.meta["val"]] * times, axis)
    return found
