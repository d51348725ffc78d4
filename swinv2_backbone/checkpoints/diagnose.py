"""The reasons why a checkpoint does not fit a model."""

from __future__ import annotations

import torch
from torch import Tensor

from swinv2_backbone.checkpoints.architecture import built_architecture
from swinv2_backbone.checkpoints.match import Match
from swinv2_backbone.checkpoints.report import some
from swinv2_backbone.checkpoints.stem import STEM_SETTINGS
from swinv2_backbone.checkpoints.target import BASE_LAYER
from swinv2_backbone.layers import PATCH_SIZE


def diagnose(found: Match, *, partial: bool, complete: bool) -> list[str]:
    """Return the reasons why the checkpoint cannot be loaded; empty if it can.

    Args:
        found: the match of a checkpoint and a model.
        partial: accept missing and unexpected tensors, and a different number of classes.
        complete: require every tensor of the model.
    """
    problems = [*_size_problems(found), *_design_problems(found)]
    if not partial:
        problems += _head_problems(found)
    problems += [*_channel_problems(found), *_shape_problems(found)]
    if not partial:
        problems += _absence_problems(found)
    if complete:
        problems += _completeness_problems(found)
    if not any(found.target.is_inside(name) for name in found.used):
        problems.append("no tensor of the backbone is in the file")
    return problems + _value_problems(found)


def _size_problems(found: Match) -> list[str]:
    ours, theirs = built_architecture(found.target.backbone), found.checkpoint.architecture
    if theirs is None or ours == theirs.first(len(ours.depths)):
        return []
    return [f"the model is a SwinV2 of {ours}, the file of {theirs}"]


def _design_problems(found: Match) -> list[str]:
    """Compare what is the same in every SwinV2 here; other values have other shapes."""
    tensors, problems = found.checkpoint.tensors, []
    stem = tensors.get("patch_embed.proj.weight")
    if stem is not None and stem.ndim == 4 and stem.shape[2:] != (PATCH_SIZE, PATCH_SIZE):
        patch = tuple(stem.shape[2:])
        problems.append(f"patch_size of the file is {patch}, of every SwinV2 here {PATCH_SIZE}")
    fc1 = tensors.get("layers.0.blocks.0.mlp.fc1.weight")
    if fc1 is not None and fc1.ndim == 2 and len(fc1) != 4 * fc1.shape[1]:
        ratio = len(fc1) / fc1.shape[1]
        problems.append(f"mlp_ratio of the file is {ratio:g}, of every SwinV2 here 4")
    return problems


def _head_problems(found: Match) -> list[str]:
    heads = [text for name, text in found.reshaped.items() if found.target.is_head(name)]
    if not heads:
        return []
    return [
        f"the classifier has another number of classes: {some(heads)}; build it with "
        "num_classes as in the file, or give partial=True to start with a new head"
    ]


def _channel_problems(found: Match) -> list[str]:
    name = f"{found.target.prefix}patch_embed.proj.weight"
    if name not in found.used:
        return []
    ours, theirs = (part[name].shape[1:2] for part in (found.target.state, found.used))
    if ours == theirs:
        return []
    return [
        f"the weights are for images of {theirs[0]} channels or bands, the model is for {ours[0]} "
        "(in_channels, MODEL.PIXEL_MEAN, --pixel-mean): state how they change, "
        f"{STEM_SETTINGS}, or give no weights to train from random ones"
    ]


def _shape_problems(found: Match) -> list[str]:
    shapes = [found.shapes(name) for name in found.used if found.has_other_shape(name)]
    return [f"{len(shapes)} tensors of another shape: {some(shapes)}"] if shapes else []


def _absence_problems(found: Match) -> list[str]:
    remedy, problems = "(partial=True loads without them)", []
    if found.missing:
        problems.append(
            f"{len(found.missing)} of {len(found.target.state)} tensors are missing: "
            f"{some(found.missing)} {remedy}"
        )
    if found.unexpected:
        adapted = any(f".{BASE_LAYER}." in key for key in found.unexpected)
        merge = "; the file has adapters, which must be merged first" if adapted else ""
        problems.append(
            f"{len(found.unexpected)} unexpected tensors: {some(found.unexpected)} {remedy}{merge}"
        )
    return problems


def _completeness_problems(found: Match) -> list[str]:
    absent = [*found.new, *found.reshaped.values()]
    if not absent:
        return []
    return [f"{len(absent)} tensors of the model are missing or of another shape: {some(absent)}"]


def _value_problems(found: Match) -> list[str]:
    pairs = {name: (tensor, found.target.state[name]) for name, tensor in found.used.items()}
    kinds = [
        f"{name} is {tensor.dtype}, not {own.dtype}"
        for name, (tensor, own) in pairs.items()
        if tensor.is_floating_point() != own.is_floating_point() or tensor.is_complex()
    ]
    broken = [
        name
        for name, (tensor, own) in pairs.items()
        if tensor.is_floating_point() and not tensor.to(own.dtype).isfinite().all()
    ]
    fixed = [name for name, (_, own) in pairs.items() if not _is_writable(own)]
    return [
        *([f"tensors of an incompatible dtype: {some(kinds)}"] if kinds else []),
        *([f"{len(broken)} tensors with NaN or infinity: {some(broken)}"] if broken else []),
        *([f"tensors of the model that cannot be written to: {some(fixed)}"] if fixed else []),
    ]


def _is_writable(tensor: Tensor) -> bool:
    """Return False for a meta tensor, and for an inference tensor outside inference mode."""
    sealed = tensor.is_inference() and not torch.is_inference_mode_enabled()
    return not (tensor.is_meta or sealed)
