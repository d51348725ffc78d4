"""Matching the tensors of a checkpoint to those of a model; nothing is copied here."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from swinv2_backbone.checkpoints.layouts.native import NATIVE
from swinv2_backbone.checkpoints.read import Checkpoint
from swinv2_backbone.checkpoints.report import group
from swinv2_backbone.checkpoints.target import Target


@dataclass
class Match:
    """The tensors of a checkpoint that a model loads, and those that either of the two lacks.

    "Name" refers to the model, "key" to the file.

    Attributes:
        checkpoint: the file's content.
        target: the model.
        used: name -> the tensor to load.
        keys: name -> key, for every matched tensor.
        reshaped: name -> both shapes, for tensors outside the backbone that keep their initial
            values because their shape in the file differs.
        dropped: key -> the reason why its tensor is not loaded.
        unexpected: keys of the backbone, with shapes, that match no tensor of a SwinV2.
        new: names that such a file does not have.
        missing: names that such a file should have.
    """

    checkpoint: Checkpoint
    target: Target
    used: dict[str, Tensor] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    reshaped: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def use(self, name: str, key: str, tensor: Tensor) -> None:
        """Select ``tensor``, which is ``key`` in the file, for ``name``."""
        self.used[name], self.keys[name] = tensor, key

    def has_other_shape(self, name: str) -> bool:
        """Return True if the tensor to load and the model's tensor differ in shape."""
        return self.target.state[name].shape != self.used[name].shape

    def shapes(self, name: str) -> str:
        """Describe the shapes of a tensor in the model and in the file."""
        key = self.keys[name]
        also = f" ({key} in the file)" if key != name else ""
        expected, found = tuple(self.target.state[name].shape), tuple(self.used[name].shape)
        return f"{name}{also}: expected {expected}, found {found}"


def match_tensors(checkpoint: Checkpoint, target: Target) -> Match:
    """Match the tensors of a checkpoint to those of a model by name."""
    found = Match(
        checkpoint,
        target,
        dropped=dict(checkpoint.dropped),
        unexpected=list(checkpoint.unexpected),
    )
    _match_backbone(found)
    _match_head(found)
    _match_surroundings(found)
    _set_reshaped_aside(found)
    for name in target.state:
        if name not in found.used and name not in found.reshaped:
            (found.new if _may_be_new(found, name) else found.missing).append(name)
    return found


def _match_backbone(found: Match) -> None:
    for ours, tensor in found.checkpoint.tensors.items():
        name, key = found.target.name_of(ours), found.checkpoint.keys.get(ours, ours)
        if name in found.target.state:
            found.use(name, key, tensor)
        elif reason := _why_not_built(found, ours):
            found.dropped[key] = reason
        else:
            found.unexpected.append(f"{key} {tuple(tensor.shape)}")


def _why_not_built(found: Match, ours: str) -> str | None:
    """Return why the model deliberately lacks a tensor of a SwinV2, or None."""
    kind, name, *_ = ours.split(".")
    backbone = found.target.backbone
    if kind == "norms":
        return f"output norm of {name}, which the model does not return"
    if kind == "layers" and len(backbone.layers) <= int(name) < backbone.num_stages:
        return f"stage {int(name) + 1}, which the model does not need for its outputs"
    return None


def _match_head(found: Match) -> None:
    if found.target.head is not None:
        for part, tensor in found.checkpoint.head.items():
            found.use(found.target.head + part, found.checkpoint.keys[f"head.{part}"], tensor)


def _match_surroundings(found: Match) -> None:
    checkpoint, around = found.checkpoint, dict(found.checkpoint.others)
    if found.target.head is None:
        around |= {
            checkpoint.keys[f"head.{part}"]: value for part, value in checkpoint.head.items()
        }
    for key, tensor in around.items():
        if _use_around(found, key, tensor):
            continue
        if key in checkpoint.others:
            found.dropped[key] = f"not part of the model ({group(key)})"
        else:
            classes = len(checkpoint.head.get("bias", ()))
            found.dropped[key] = f"classifier of {classes} classes; the model has none"


def _use_around(found: Match, key: str, tensor: Tensor) -> bool:
    """Select a tensor outside the backbone if our own file has it at the same place."""
    theirs, ours = _outer_prefixes(found.checkpoint.prefix, found.target.prefix)
    name = ours + key.removeprefix(theirs)
    free = name in found.target.state and name not in found.used
    placed = free and not found.target.is_inside(name) and key.startswith(theirs)
    if placed and found.checkpoint.layout is NATIVE:
        found.use(name, key, tensor)
        return True
    return False


def _outer_prefixes(theirs: str, ours: str) -> tuple[str, str]:
    """Strip the common suffix of the backbone's prefixes in the file and in the model.

    ``module.backbone.bottom_up.`` and ``backbone.bottom_up.`` -> ``module.`` and the empty string.
    """
    file, model = theirs.split("."), ours.split(".")
    while file and model and file[-1] == model[-1]:
        file, model = file[:-1], model[:-1]
    return "".join(f"{part}." for part in file), "".join(f"{part}." for part in model)


def _set_reshaped_aside(found: Match) -> None:
    """Keep the initial values of layers outside the backbone whose shape in the file differs."""
    outside = [name for name in found.used if not found.target.is_inside(name)]
    layers = {name.rpartition(".")[0] for name in outside if found.has_other_shape(name)}
    for name in outside:
        if name.rpartition(".")[0] in layers:
            found.reshaped[name] = found.shapes(name)
            del found.used[name]


def _may_be_new(found: Match, name: str) -> bool:
    """Return True for a tensor that no file, or no file of this kind, is expected to have."""
    target, tensors = found.target, found.checkpoint.tensors
    if target.is_head(name):
        return False
    if not target.is_inside(name) or target.is_of_adapter(name):
        return True
    kind, output, *_ = name.removeprefix(target.prefix).split(".")
    last = list(target.backbone.channels)[-1] if _has_all_stages(found) else None
    if kind != "norms" or (output == last and found.checkpoint.has_final_norm):
        return False
    # Weight and bias come together: a file with only one of the two is damaged.
    return not any(ours.startswith(f"norms.{output}.") for ours in tensors)


def _has_all_stages(found: Match) -> bool:
    """Return True if the model has all stages of the file, whose last norm is always saved."""
    size = found.checkpoint.architecture
    return size is None or len(found.target.backbone.layers) >= len(size.depths)
