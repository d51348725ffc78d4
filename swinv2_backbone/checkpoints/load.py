"""Loading a checkpoint into a backbone, a classifier or a detector: all of it or not at all."""

from __future__ import annotations

import logging
import os

import torch
from torch import Tensor, nn

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.checkpoints.fetch import fetch
from swinv2_backbone.checkpoints.layouts.native import NATIVE
from swinv2_backbone.checkpoints.pretrained_window import (
    Architecture,
    PretrainedWindows,
    apply_pretrained_windows,
    decide_pretrained_windows,
)
from swinv2_backbone.checkpoints.read import Checkpoint, read_checkpoint
from swinv2_backbone.checkpoints.report import LoadReport, group, some
from swinv2_backbone.classifier import SwinV2Classifier


def load_checkpoint(
    model: nn.Module,
    source: str | os.PathLike,
    *,
    partial: bool = False,
    prefix: str | None = None,
) -> LoadReport:
    """Load weights of any known layout into a SwinV2 or a model around one.

    Nothing of the model changes unless all checks pass.

    Args:
        model: a :class:`SwinV2`, a :class:`SwinV2Classifier`, or any module with one SwinV2 in it.
        source: a file (.pth, .pt, .bin, .safetensors), the folder of a Hugging Face model, an
            https:// address, or ``swinv2://NAME`` for a published variant.
        partial: load what is there even though tensors are missing or unknown, or the classifier
            has another number of classes; the report says which, and so does the log.
        prefix: of the backbone's names, for a file with several backbones.

    Returns:
        What was loaded and what was not.

    Raises:
        OSError: the file is not there or cannot be fetched.
        ValueError: the file is damaged, unsafe or of another family; tensors are missing, unknown,
            of another shape or not finite; or the pretrained windows are unknown or
            not the model's.
    """
    return load_into(model, read_checkpoint(fetch(source), prefix), partial=partial)


def load_into(
    model: nn.Module, checkpoint: Checkpoint, *, partial: bool = False, complete: bool = False
) -> LoadReport:
    """:func:`load_checkpoint` for a file that has been read.

    Args:
        complete: refuse a file that does not have every tensor of the model.
    """
    plan = _Plan(model, checkpoint)
    problems = plan.problems(partial, complete)
    if problems:
        raise ValueError(f"{checkpoint.path} does not fit the model:\n  " + "\n  ".join(problems))
    pretrained = decide_pretrained_windows(
        plan.backbone, checkpoint.pretrained_windows, checkpoint.path
    )
    with torch.no_grad():
        for name, tensor in plan.used.items():
            plan.state[name].copy_(_placed_as(plan.state[name], tensor))
    apply_pretrained_windows(plan.backbone, pretrained)
    report = plan.report(pretrained)
    logger = logging.getLogger(__name__)
    if report.missing or report.unexpected or report.reshaped:
        logger.warning(f"loaded in part only:\n{report}")
    else:
        logger.info(f"loaded:\n{report}")
    return report


def _placed_as(target: Tensor, tensor: Tensor) -> Tensor:
    """``tensor``, in shards if ``target`` is a model's that lies on several processes."""
    if not hasattr(target, "placements"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    tensor = tensor.to(target.device, target.dtype)
    return distribute_tensor(tensor, target.device_mesh, target.placements)


def find_backbone(model: nn.Module) -> tuple[str, SwinV2]:
    """The one SwinV2 in a model and the prefix of its parameters.

    Raises:
        ValueError: there is none, or there are several.
    """
    found = [(name, part) for name, part in model.named_modules() if isinstance(part, SwinV2)]
    if len(found) != 1:
        where = f": {', '.join(name for name, _ in found)}; load into each" if found else ""
        raise ValueError(
            f"{type(model).__name__} has {len(found)} SwinV2 backbones, not one{where}"
        )
    name, backbone = found[0]
    return f"{name}." if name else "", backbone


class _Plan:
    """Which tensor of a checkpoint goes where in a model, before anything moves.

    Names are the model's.  Its SwinV2 is at ``place``; what is around that has a name without it.
    """

    def __init__(self, model: nn.Module, checkpoint: Checkpoint):
        self.checkpoint = checkpoint
        self.state = model.state_dict(keep_vars=True)
        self.place, self.backbone = find_backbone(model)
        self.head = _head_of(model)
        self.used: dict[str, Tensor] = {}
        self.keys: dict[str, str] = {}  # name -> key in the file
        self.reshaped: dict[str, str] = {}  # name -> both shapes; around the backbone
        self.dropped = dict(checkpoint.dropped)
        self.unexpected = list(checkpoint.unexpected)
        self._place_backbone()
        self._place_around()
        self._leave_reshaped()
        absent = [n for n in self.state if n not in self.used and n not in self.reshaped]
        self.new = [name for name in absent if self._may_be_new(name)]
        self.missing = [name for name in absent if name not in self.new]

    def _use(self, name: str, key: str, tensor: Tensor) -> None:
        self.used[name], self.keys[name] = tensor, key

    def _place_backbone(self) -> None:
        for ours, tensor in self.checkpoint.tensors.items():
            name, key = self.place + ours, self.checkpoint.keys.get(ours, ours)
            if name in self.state:
                self._use(name, key, tensor)
            elif reason := self._not_built(ours):
                self.dropped[key] = reason
            else:
                self.unexpected.append(f"{key} {tuple(tensor.shape)}")

    def _not_built(self, ours: str) -> str | None:
        """Why a tensor of a SwinV2 has no place in ours, if it is on purpose."""
        kind, name, *_ = ours.split(".")
        if kind == "norms":
            return f"output norm of {name}, which the model does not return"
        if kind == "layers" and len(self.backbone.layers) <= int(name) < self.backbone.num_stages:
            return f"stage {int(name) + 1}, which the model does not need for its outputs"
        return None

    def _place_around(self) -> None:
        """The head of a classifier; and of our own detectors, everything of the same name."""
        around = dict(self.checkpoint.others)
        for part, tensor in self.checkpoint.head.items():
            key = self.checkpoint.keys[f"head.{part}"]
            if self.head is not None:
                self._use(self.head + part, key, tensor)
            else:
                around[key] = tensor
        theirs, ours = self._surroundings()
        for key, tensor in around.items():
            name = ours + key.removeprefix(theirs)
            known = name in self.state and name not in self.used and not self._inside(name)
            if known and key.startswith(theirs) and self.checkpoint.layout is NATIVE:
                self._use(name, key, tensor)
            elif key in self.checkpoint.others:
                self.dropped[key] = f"not part of the model ({group(key)})"
            else:
                classes = len(self.checkpoint.head.get("bias", ()))
                self.dropped[key] = f"classifier of {classes} classes; the model has none"

    def _inside(self, name: str) -> bool:
        return name.startswith(self.place)

    def _surroundings(self) -> tuple[str, str]:
        """What stands before everything in the file and in the model, backbone or not.

        ``module.backbone.bottom_up.`` and ``backbone.bottom_up.`` -> ``module.`` and nothing.
        """
        theirs, ours = self.checkpoint.prefix.split("."), self.place.split(".")
        while theirs and ours and theirs[-1] == ours[-1]:
            theirs, ours = theirs[:-1], ours[:-1]
        return tuple("".join(f"{part}." for part in parts) for parts in (theirs, ours))

    def _leave_reshaped(self) -> None:
        """Around the backbone, a layer with a tensor of another shape keeps its initial values."""
        layers = {
            name.rpartition(".")[0]
            for name in self.used
            if not self._inside(name) and self._is_reshaped(name)
        }
        for name in list(self.used):
            if not self._inside(name) and name.rpartition(".")[0] in layers:
                self.reshaped[name] = self._shapes(name)
                del self.used[name]

    def _is_reshaped(self, name: str) -> bool:
        return self.state[name].shape != self.used[name].shape

    def _shapes(self, name: str) -> str:
        key = self.keys[name]
        also = f" ({key} in the file)" if key != name else ""
        expected, found = tuple(self.state[name].shape), tuple(self.used[name].shape)
        return f"{name}{also}: expected {expected}, found {found}"

    def _may_be_new(self, name: str) -> bool:
        """Whether no file, or none of this kind, can be expected to have a tensor."""
        if self.head is not None and name.startswith(self.head):
            return False
        if not self._inside(name):
            return True
        kind, output, *_ = name.removeprefix(self.place).split(".")
        last = list(self.backbone.channels)[-1] if self._has_all_stages() else None
        if kind != "norms" or output == last:
            return False
        # Weight and bias come together: a file with one of them has lost the other.
        return not any(ours.startswith(f"norms.{output}.") for ours in self.checkpoint.tensors)

    def _has_all_stages(self) -> bool:
        """Whether the model's last stage is the file's, whose norm every publisher's file has."""
        size = self.checkpoint.architecture
        return size is None or len(self.backbone.layers) >= len(size.depths)

    def problems(self, partial: bool, complete: bool) -> list[str]:
        """What forbids loading, in words."""
        found = []
        sizes = self._architectures()
        if sizes is not None:
            found.append(f"the model is a SwinV2 of {sizes[0]}, the file of {sizes[1]}")
        heads = [text for name, text in self.reshaped.items() if self._is_head(name)]
        if heads and not partial:
            found.append(
                f"the classifier has another number of classes: {some(heads)}; build it with "
                "num_classes as in the file, or give partial=True to start with a new head"
            )
        shapes = [self._shapes(name) for name in self.used if self._is_reshaped(name)]
        if shapes:
            found.append(f"{len(shapes)} tensors of another shape: {some(shapes)}")
        if self.missing and not partial:
            found.append(
                f"{len(self.missing)} of {len(self.state)} tensors are missing: "
                f"{some(self.missing)} (partial=True loads without them)"
            )
        if self.unexpected and not partial:
            found.append(
                f"{len(self.unexpected)} tensors that this model does not know: "
                f"{some(self.unexpected)} (partial=True loads without them)"
            )
        if complete and (self.new or self.reshaped):
            absent = [*self.new, *self.reshaped.values()]
            found.append(f"{len(absent)} tensors are not those of this model: {some(absent)}")
        if not any(self._inside(name) for name in self.used):
            found.append("no tensor of the backbone is in the file")
        return found + self._value_problems()

    def _is_head(self, name: str) -> bool:
        return self.head is not None and name.startswith(self.head)

    def _architectures(self) -> tuple[Architecture, Architecture] | None:
        """The sizes of the model and the file, as far as both go, if they differ."""
        theirs = self.checkpoint.architecture
        blocks = [list(stage.blocks) for stage in self.backbone.layers]
        ours = Architecture(
            self.backbone.patch_embed.proj.out_channels,
            tuple(len(stage) for stage in blocks),
            tuple(len(stage[0].attn.logit_scale) for stage in blocks),
        )
        stages = len(blocks)
        if theirs is None or ours == (theirs[0], theirs[1][:stages], theirs[2][:stages]):
            return None
        return ours, theirs

    def _value_problems(self) -> list[str]:
        pairs = {name: (tensor, self.state[name]) for name, tensor in self.used.items()}
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
        fixed = [name for name, (_, own) in pairs.items() if own.is_meta or _is_sealed(own)]
        return [
            *([f"tensors of another kind: {some(kinds)}"] if kinds else []),
            *([f"{len(broken)} tensors with NaN or infinity: {some(broken)}"] if broken else []),
            *([f"tensors of the model that cannot be written to: {some(fixed)}"] if fixed else []),
        ]

    def report(self, pretrained: PretrainedWindows) -> LoadReport:
        checkpoint = self.checkpoint
        notes = []
        if checkpoint.wrapper in ("model_ema", "state_dict_ema"):
            notes.append(f"the averaged weights of the file, {checkpoint.wrapper!r}")
        kinds = {t.dtype for n, t in self.used.items() if t.dtype != self.state[n].dtype}
        notes += [f"converted from {str(kind).removeprefix('torch.')}" for kind in kinds]
        return LoadReport(
            source=str(checkpoint.path),
            layout=checkpoint.layout.name,
            pretrained_windows=pretrained,
            used=list(self.used),
            new=self.new,
            missing=self.missing,
            reshaped=list(self.reshaped.values()),
            dropped=self.dropped,
            unexpected=self.unexpected,
            notes=notes,
        )


def _is_sealed(tensor: Tensor) -> bool:
    """Made in inference mode, and not to be written to outside it."""
    return tensor.is_inference() and not torch.is_inference_mode_enabled()


def _head_of(model: nn.Module) -> str | None:
    """The prefix of the head of the classifier that a model is or has."""
    for name, part in model.named_modules():
        if isinstance(part, SwinV2Classifier):
            return f"{name}.head." if name else "head."
    return None
