"""Loading a checkpoint into a backbone, a classifier or a detector: all of it or not at all."""

from __future__ import annotations

import logging
import os

import torch
from torch import Tensor, nn

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.checkpoints.checkpoint import Checkpoint, read_checkpoint
from swinv2_backbone.checkpoints.download import fetch
from swinv2_backbone.checkpoints.normaliser import (
    Architecture,
    Normaliser,
    apply_normaliser,
    check_normaliser,
)
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
            of another shape or not finite; or the normaliser of the position bias is unknown or
            not the model's.
    """
    return load_into(model, read_checkpoint(fetch(source), prefix), partial=partial)


def load_into(model: nn.Module, checkpoint: Checkpoint, *, partial: bool = False) -> LoadReport:
    """:func:`load_checkpoint` for a file that has been read."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    place, backbone = find_backbone(model)
    plan = _Plan(model, place, backbone, checkpoint)
    problems = plan.problems(partial)
    if problems:
        raise ValueError(f"{checkpoint.path} does not fit the model:\n  " + "\n  ".join(problems))
    normaliser = check_normaliser(backbone, checkpoint.normaliser, checkpoint.path)
    apply_normaliser(backbone, normaliser)
    with torch.no_grad():
        for name, tensor in plan.used.items():
            plan.state[name].copy_(tensor)
    report = plan.report(normaliser)
    if report.missing or report.unexpected:
        logging.getLogger(__name__).warning(f"loaded in part only:\n{report}")
    return report


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
    """Which tensor of a checkpoint goes where in a model, before anything moves."""

    def __init__(self, model: nn.Module, place: str, backbone: SwinV2, checkpoint: Checkpoint):
        self.state = model.state_dict(keep_vars=True)
        self.place, self.backbone, self.checkpoint = place, backbone, checkpoint
        self.head = _head_of(model)
        self.used: dict[str, Tensor] = {}
        self.reshaped: dict[str, str] = {}
        self.dropped = dict(checkpoint.dropped)
        self.unexpected = list(checkpoint.unexpected)
        self._place_backbone()
        self._place_head()
        self._place_others()
        absent = [n for n in self.state if n not in self.used and n not in self.reshaped]
        self.new = [name for name in absent if self._may_be_new(name)]
        self.missing = [name for name in absent if name not in self.new]

    def _place_backbone(self) -> None:
        for ours, tensor in self.checkpoint.tensors.items():
            name, key = self.place + ours, self.checkpoint.keys.get(ours, ours)
            if name in self.state:
                self.used[name] = tensor
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

    def _place_head(self) -> None:
        for part, tensor in self.checkpoint.head.items():
            if self.head is not None and f"{self.head}{part}" in self.state:
                self.used[f"{self.head}{part}"] = tensor
            elif self.head is not None or part not in ("weight", "bias"):
                self.unexpected.append(f"head.{part} {tuple(tensor.shape)}")
            else:
                classes = f"{len(tensor)} classes" if tensor.ndim else "no classes"
                self.dropped[f"head.{part}"] = f"classifier of {classes}; the model has none"

    def _place_others(self) -> None:
        """A detector's heads: by the same name, where the shape is the same."""
        for key, tensor in self.checkpoint.others.items():
            name = key.removeprefix("module.")
            own = self.state.get(name)
            if own is None or name in self.used or name.startswith(self.place):
                self.dropped[key] = f"not part of the model ({group(name)})"
            elif own.shape != tensor.shape:
                self.reshaped[name] = (
                    f"{name} {tuple(own.shape)}, {tuple(tensor.shape)} in the file"
                )
            else:
                self.used[name] = tensor

    def _may_be_new(self, name: str) -> bool:
        """Whether no file, or none of this kind, can be expected to have a tensor."""
        if self.head is not None and name.startswith(self.head):
            return False
        if not name.startswith(self.place):
            return True
        kind, output, *_ = name.removeprefix(self.place).split(".")
        if kind != "norms" or output == "res5":
            return False
        # Weight and bias come together: a file with one of them has lost the other.
        return not any(ours.startswith(f"norms.{output}.") for ours in self.checkpoint.tensors)

    def problems(self, partial: bool) -> list[str]:
        """What forbids loading, in words."""
        found = []
        sizes = self._architectures()
        if sizes is not None:
            found.append(f"the model is a SwinV2 of {sizes[0]}, the file of {sizes[1]}")
        wrong = [self._shape_problem(n, t) for n, t in self.used.items() if self._reshaped(n, t)]
        heads = [text for text in wrong if self.head and text.startswith(self.head)]
        if heads and partial:
            self._leave_head()
        elif heads:
            found.append(
                f"the classifier has another number of classes: {some(heads)}; build it with "
                "num_classes as in the file, or give partial=True to start with a new head"
            )
        shapes = [text for text in wrong if text not in heads]
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
        if not any(name.startswith(self.place) for name in self.used):
            found.append("no tensor of the backbone is in the file")
        if not wrong:
            found += self._value_problems()
        return found

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

    def _reshaped(self, name: str, tensor: Tensor) -> bool:
        return self.state[name].shape != tensor.shape

    def _shape_problem(self, name: str, tensor: Tensor) -> str:
        key = self.checkpoint.keys.get(name.removeprefix(self.place))
        also = f" ({key} in the file)" if key not in (None, name) else ""
        expected, found = tuple(self.state[name].shape), tuple(tensor.shape)
        return f"{name}{also}: expected {expected}, found {found}"

    def _leave_head(self) -> None:
        for name in [name for name in self.used if name.startswith(self.head)]:
            del self.used[name]
            self.missing.append(name)

    def _value_problems(self) -> list[str]:
        found = []
        kinds = [f"{n} is {t.dtype}" for n, t in self.used.items() if not t.is_floating_point()]
        if kinds:
            found.append(f"weights that are no floating point numbers: {some(kinds)}")
        broken = [n for n, t in self.used.items() if not t.to(self.state[n].dtype).isfinite().all()]
        if broken:
            found.append(f"{len(broken)} tensors with NaN or infinity: {some(broken)}")
        return found

    def report(self, normaliser: Normaliser) -> LoadReport:
        checkpoint = self.checkpoint
        notes = []
        if checkpoint.wrapper in ("model_ema", "state_dict_ema"):
            notes.append(f"the averaged weights of the file, {checkpoint.wrapper!r}")
        kinds = {t.dtype for n, t in self.used.items() if t.dtype != self.state[n].dtype}
        notes += [f"converted from {str(kind).removeprefix('torch.')}" for kind in kinds]
        return LoadReport(
            source=str(checkpoint.path),
            layout=checkpoint.layout.name,
            normaliser=normaliser,
            used=list(self.used),
            new=self.new,
            missing=self.missing,
            reshaped=list(self.reshaped.values()),
            dropped=self.dropped,
            unexpected=self.unexpected,
            notes=notes,
        )


def _head_of(model: nn.Module) -> str | None:
    """The prefix of the head of the classifier that a model is or has."""
    for name, part in model.named_modules():
        if isinstance(part, SwinV2Classifier):
            return f"{name}.head." if name else "head."
    return None
