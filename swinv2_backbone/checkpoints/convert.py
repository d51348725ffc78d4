"""Converting a model's tensors to the layout of a publisher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from swinv2_backbone.backbone import FEATURES, SwinV2
from swinv2_backbone.checkpoints.layouts.hugging_face import HUGGING_FACE
from swinv2_backbone.checkpoints.layouts.layout import Layout, Tensors
from swinv2_backbone.checkpoints.layouts.microsoft import MICROSOFT
from swinv2_backbone.checkpoints.layouts.mmpretrain import MMPRETRAIN
from swinv2_backbone.checkpoints.layouts.native import NATIVE
from swinv2_backbone.checkpoints.layouts.timm import TIMM
from swinv2_backbone.checkpoints.layouts.torchvision import TORCHVISION
from swinv2_backbone.checkpoints.target import find_backbone
from swinv2_backbone.packing import Size
from swinv2_backbone.position_bias import log_spaced_offsets, offset_index

# "detectron2" has our names in the format of Detectron2's own checkpointer, which matches them
# with the backbone of a detector.
TARGETS: dict[str, Layout] = {
    "native": NATIVE,
    "detectron2": NATIVE,
    "timm": TIMM,
    "microsoft": MICROSOFT,
    "huggingface": HUGGING_FACE,
    "mmpretrain": MMPRETRAIN,
    "torchvision": TORCHVISION,
}
WITH_TABLES = ("microsoft", "mmpretrain", "torchvision")  # their models have tables as buffers


def to_layout(model: nn.Module, to: str) -> tuple[Tensors, list[str]]:
    """Convert the tensors of a backbone or a classifier.

    Args:
        model: a SwinV2 or a SwinV2Classifier.
        to: a key of ``TARGETS``.

    Returns:
        The tensors under the publisher's names, and our names that the layout has no place for.

    Raises:
        ValueError: weights other than output norms would be lost.
    """
    layout, (place, backbone) = TARGETS[to], find_backbone(model)
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    inside = {n.removeprefix(place): v for n, v in state.items() if n.startswith(place)}
    if len(layout.norms) == 1:  # of the last stage, which may not be the fourth
        last = f"norms.{FEATURES[len(backbone.layers) - 1]}."
        inside = {name.replace(last, "norms.res5."): value for name, value in inside.items()}
    # Only within a classifier do the backbone's names have the publisher's root.
    root = layout.root if place else ""
    content, left = _renamed(layout, root, layout.from_ours(inside))
    lost = [name for name in left if not name.startswith("norms.")]
    if lost:
        raise ValueError(
            f"the layout {to!r} has no place for {len(lost)} tensors, such as {lost[0]} (the extra "
            "norms of SwinV2-H and -G are in native and mmpretrain files only)"
        )
    content |= {
        name.replace("head.", f"{layout.head}.", 1): value
        for name, value in state.items()
        if place and name.startswith("head.")
    }
    if to in WITH_TABLES:
        content |= _tables(backbone, layout, root)
    return content, left


def _renamed(layout: Layout, root: str, tensors: Tensors) -> tuple[Tensors, list[str]]:
    """Return the tensors under the publisher's names, and our names without a counterpart."""
    content, left = {}, []
    for ours, value in tensors.items():
        theirs = layout.theirs(ours)
        if theirs is None:
            left.append(ours)
        else:
            content[root + theirs] = value
    return content, left


def _tables(backbone: SwinV2, layout: Layout, root: str) -> Tensors:
    """Return the buffers made from windows, from which the pretrained windows can be read."""
    found = {}
    for i, stage in enumerate(backbone.layers):
        window, pretrained = stage.window_size, backbone.pretrained_window_sizes[i]
        index = offset_index(window, torch.device("cpu"))
        if layout is not TORCHVISION:  # torchvision's is flat
            index = index.view(window[0] * window[1], -1)
        for j in range(len(stage.blocks)):
            beside = root + layout.logit_scale(i, j)
            found[beside.replace("logit_scale", "relative_position_index")] = index.long()
            found[beside.replace("logit_scale", "relative_coords_table")] = coords_table(
                window, pretrained
            )
    return found


def coords_table(window: Size, pretrained: Size) -> Tensor:
    """Return (1, 2 Mh - 1, 2 Mw - 1, 2), the log-spaced coordinates of all offsets in a window."""
    device = torch.device("cpu")
    axes = [log_spaced_offsets(m, p, device, torch.float32) for m, p in zip(window, pretrained)]
    return torch.stack(torch.meshgrid(axes, indexing="ij"), dim=-1)[None]
