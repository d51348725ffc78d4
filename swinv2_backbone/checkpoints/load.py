"""Loading a checkpoint into a backbone, a classifier or a detector, all or nothing."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from swinv2_backbone.checkpoints.diagnose import diagnose
from swinv2_backbone.checkpoints.fetch import fetch
from swinv2_backbone.checkpoints.layouts.native import NATIVE
from swinv2_backbone.checkpoints.match import Match, match_tensors
from swinv2_backbone.checkpoints.pretrained_sources import suggestion
from swinv2_backbone.checkpoints.pretrained_window import (
    PretrainedWindows,
    apply_pretrained_windows,
    decide_pretrained_windows,
)
from swinv2_backbone.checkpoints.proportion import unusual_values
from swinv2_backbone.checkpoints.read import Checkpoint, read_checkpoint
from swinv2_backbone.checkpoints.report import LoadReport, some
from swinv2_backbone.checkpoints.stem import with_stem
from swinv2_backbone.checkpoints.target import target_of


def load_checkpoint(
    model: nn.Module,
    source: str | os.PathLike,
    *,
    partial: bool = False,
    prefix: str | None = None,
    stem: str | None = None,
) -> LoadReport:
    """Load weights of any known layout into a SwinV2 or a model around one.

    The model changes only if all checks pass.

    Args:
        model: a :class:`SwinV2`, a :class:`SwinV2Classifier`, or any module with one SwinV2 in it.
        source: a PyTorch or safetensors file, whatever its name is, the folder of a Hugging Face
            model, an https:// address, ``swinv2://NAME`` for a published variant, or
            ``hf://org/name[@revision][/file]``, a repository of the Hugging Face Hub. Each may end
            in ``#sha256=HEX``, the digest that the file must have.
        partial: load even if tensors are missing or unexpected, or the classifier has a different
            number of classes; the report and the log list them.
        prefix: the prefix of the backbone's names, for a file with several backbones.
        stem: the rule for weights of another number of channels than the model: "repeat", "mean"
            or "zero", see :func:`swinv2_backbone.checkpoints.stem.stem_matrix`.  None: such weights
            are refused.

    Returns:
        A report of the tensors that were loaded, and those that were not. Values out of all
        proportion are listed and logged as a warning.

    Raises:
        OSError: the file does not exist or cannot be fetched.
        ValueError: the file is damaged, unsafe or of another model family; tensors are missing,
            unexpected, of another shape or not finite; or the pretrained windows are unknown or
            differ from the model's.
    """
    checkpoint = read_checkpoint(fetch(source), prefix)
    return load_into(model, checkpoint, partial=partial, stem=stem)


def load_into(
    model: nn.Module,
    checkpoint: Checkpoint,
    *,
    partial: bool = False,
    complete: bool = False,
    stem: str | None = None,
) -> LoadReport:
    """Load a checkpoint that has been read; see :func:`load_checkpoint`.

    Args:
        complete: require every tensor of the model.
    """
    target = target_of(model)
    checkpoint, changed_stem = with_stem(checkpoint, target.backbone.in_channels, stem)
    found = match_tensors(checkpoint, target)
    problems = diagnose(found, partial=partial, complete=complete)
    if problems:
        raise ValueError(f"{checkpoint.path} does not fit the model:\n  " + "\n  ".join(problems))
    backbone = found.target.backbone
    windows = decide_pretrained_windows(
        backbone,
        checkpoint.pretrained_windows,
        checkpoint.path,
        own=checkpoint.layout is NATIVE,
        suggestion=suggestion(checkpoint.path, checkpoint.architecture),
    )
    with torch.no_grad():
        for name, tensor in found.used.items():
            own = found.target.state[name]
            own.copy_(_sharded_like(own, tensor))
    apply_pretrained_windows(backbone, windows)
    report = _report(found, windows, changed_stem)
    if not complete:  # a training resumes from files of ours, which have checksums
        report.unusual = unusual_values(_parameters(found))
    _log(report)
    return report


def _parameters(found: Match) -> dict[str, Tensor]:
    """Return the loaded tensors without buffers, such as variances, which can have any size."""
    state = found.target.state
    return {name: t for name, t in found.used.items() if isinstance(state[name], nn.Parameter)}


def _sharded_like(target: Tensor, tensor: Tensor) -> Tensor:
    """Return ``tensor``, sharded like ``target`` if the model is sharded."""
    if not hasattr(target, "placements"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(target, DTensor)
    tensor = tensor.to(target.device, target.dtype)
    return distribute_tensor(tensor, target.device_mesh, target.placements)


def _report(found: Match, windows: PretrainedWindows, stem: str | None) -> LoadReport:
    checkpoint, state = found.checkpoint, found.target.state
    notes = list(checkpoint.notes)
    if checkpoint.wrapper in ("model_ema", "state_dict_ema"):
        notes.append(f"the averaged weights of the file, {checkpoint.wrapper!r}")
    dtypes = {t.dtype for name, t in found.used.items() if t.dtype != state[name].dtype}
    notes += _other_small_map_rule(found)
    notes += [f"converted from {str(dtype).removeprefix('torch.')}" for dtype in dtypes]
    return LoadReport(
        source=str(checkpoint.path),
        layout=checkpoint.layout.name,
        pretrained_windows=windows,
        used=list(found.used),
        new=found.new,
        missing=found.missing,
        reshaped=list(found.reshaped.values()),
        dropped=found.dropped,
        unexpected=found.unexpected,
        stem=stem,
        notes=notes,
    )


def _other_small_map_rule(found: Match) -> list[str]:
    """Describe a rule for small maps that differs from the one of the model, in one line."""
    checkpoint, target = found.checkpoint, found.target
    theirs, whose = checkpoint.small_map_rule, "the saved model"
    if theirs is None and target.head is not None:  # a published classifier
        theirs, whose = checkpoint.layout.small_map_rule, f"{checkpoint.layout.name}'s own model"
    ours = target.backbone.small_map_rule
    if theirs in (None, ours):
        return []
    return [
        f"{whose} has small_map_rule {theirs!r}, this one {ours!r}: the features of images that "
        "are not square may differ"
    ]


def _log(report: LoadReport) -> None:
    logger = logging.getLogger(__name__)
    if report.missing or report.unexpected or report.reshaped:
        logger.warning(f"loaded only in part:\n{report}")
    else:
        logger.info(f"loaded:\n{report}")
    if report.unusual:
        logger.warning(
            f"{report.source} may be damaged, or its training diverged: {some(report.unusual)}. "
            "Compare it with the SHA-256 that its publisher states: load it as SOURCE#sha256=HEX, "
            f"or write HEX into {Path(report.source).name}.sha256 beside it"
        )
