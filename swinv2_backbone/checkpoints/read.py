"""Reading a weight file of any layout into tensors under our names, independently of a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swinv2_backbone.backbone import FEATURES, SMALL_MAP_RULES
from swinv2_backbone.checkpoints.architecture import Architecture
from swinv2_backbone.checkpoints.files import Content, read_file, weights_in_folder
from swinv2_backbone.checkpoints.layouts.hugging_face import HUGGING_FACE
from swinv2_backbone.checkpoints.layouts.layout import Layout, Tensors
from swinv2_backbone.checkpoints.layouts.timm import FEATURES_ONLY
from swinv2_backbone.checkpoints.pretrained_sources import from_metadata, from_tables
from swinv2_backbone.checkpoints.pretrained_window import PretrainedWindows
from swinv2_backbone.checkpoints.recognize import Found, recognize, unwrap
from swinv2_backbone.checkpoints.stated_settings import RULES, Build, settings_of, windows_of_builds

TABLE = "relative_coords_table"
NO_BIASES = "no biases of q and v in the file (qkv_bias=False): zeros, which compute the same"

# Tensors that no model loads, by the last part of their names, each with the reason.
DROPPED = {
    TABLE: "made from the window; the pretrained window is read from it",
    "relative_position_index": "made from the window",
    "attn_mask": "made from the map",
    "mask_token": "stands for hidden patches in SimMIM",
}


@dataclass
class Checkpoint:
    """The weights of a SwinV2 in a file, and those of the model around it.

    Attributes:
        path: the file.
        layout: the publisher's layout.
        prefix: the prefix of the backbone's names in the file.
        tensors: the backbone's tensors, by our names.
        keys: our name -> key in the file.
        head: ``weight`` and ``bias`` of the classifier, if there is one.
        others: the tensors around the backbone, by the file's keys.
        dropped: key in the file -> the reason why no model needs it.
        unexpected: keys of the backbone that are not part of the layout, with shapes.
        architecture: the size of the backbone; None if tensors that determine it are missing.
        pretrained_windows: None if no source specifies them.
        small_map_rule: that of the saved model, from our notes (see :class:`SwinV2`), or None.
        has_final_norm: False if the publisher's model has no norm after the last stage.
        notes: remarks for the report.
        wrapper: the key of the state dict in the file; None if the file is the state dict.
    """

    path: Path
    layout: Layout
    prefix: str = ""
    tensors: Tensors = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    head: Tensors = field(default_factory=dict)
    others: Tensors = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    architecture: Architecture | None = None
    pretrained_windows: PretrainedWindows | None = None
    small_map_rule: str | None = None
    has_final_norm: bool = True
    notes: list[str] = field(default_factory=list)
    wrapper: str | None = None


def read_checkpoint(path: str | Path, prefix: str | None = None) -> Checkpoint:
    """Read a weight file of any layout.

    Args:
        path: the file, or the folder of a Hugging Face model.
        prefix: the prefix of the backbone's names, for a file with several backbones.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged or unsafe, or holds no SwinV2 (or another model family).
    """
    path = weights_in_folder(Path(path))
    return interpret(path, read_file(path), prefix)


def interpret(path: Path, content: Content, prefix: str | None = None) -> Checkpoint:
    """Interpret the content of ``path``; see :func:`read_checkpoint`."""
    try:
        state, wrapper = unwrap(content.value)
        found = recognize([key for key in state if isinstance(key, str)], prefix)
        checkpoint = Checkpoint(path, found.layout, found.prefix, wrapper=wrapper)
        tables = _sort(checkpoint, found, state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    checkpoint.tensors = _with_final_norm(found.layout, found.layout.to_ours(checkpoint.tensors))
    checkpoint.architecture = _architecture(checkpoint.tensors)
    _add_absent_biases(checkpoint)
    try:
        settings = settings_of(path, found.layout, content.value)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    checkpoint.has_final_norm = _has_final_norm(found.layout, settings)
    checkpoint.pretrained_windows = _pretrained_windows(
        checkpoint, tables, content.metadata, settings
    )
    checkpoint.small_map_rule = _small_map_rule(path, content.metadata)
    return checkpoint


def _sort(checkpoint: Checkpoint, found: Found, state: Mapping[Any, Any]) -> Tensors:
    """Put the entries of a state dict into the fields of a checkpoint.

    Returns:
        The tables of offsets, keyed by our name of the logit scale beside each.
    """
    tables: Tensors = {}
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor) or not isinstance(key, str):
            checkpoint.dropped[str(key)] = "not a tensor with a name"
        else:
            _check_plain(key, tensor)
            _sort_tensor(checkpoint, found, key, tensor, tables)
    return tables


def _check_plain(key: str, tensor: Tensor) -> None:
    """Raise ValueError for a tensor that is not a dense array of numbers in memory."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_nested:
        kind = "without data" if tensor.is_meta else "sparse, quantized or nested"
        raise ValueError(f"the tensor {key!r} is {kind}: only plain ones are read")


def _sort_tensor(
    checkpoint: Checkpoint, found: Found, key: str, tensor: Tensor, tables: Tensors
) -> None:
    layout, last = found.layout, key.rpartition(".")[2]
    head = f"{found.outer}{layout.head}."
    inner = key.removeprefix(found.prefix)
    if key in (f"{head}weight", f"{head}bias") and tensor.ndim > 0:
        checkpoint.head[last] = tensor
        checkpoint.keys[f"head.{last}"] = key
    elif not found.has(key):
        checkpoint.others[key] = tensor
    elif last in DROPPED:
        checkpoint.dropped[key] = DROPPED[last]
        # Every layout has a logit_scale beside the table.
        ours = layout.ours(inner.removesuffix(TABLE) + "logit_scale") if last == TABLE else None
        if ours is not None:
            tables[ours] = tensor
    elif (ours := layout.ours(inner)) is not None:
        checkpoint.tensors[ours] = tensor
        checkpoint.keys[ours] = key
    else:
        checkpoint.unexpected.append(f"{key} {tuple(tensor.shape)}")


def _blocks_of_stages(tensors: Tensors) -> dict[int, set[int]]:
    """Return stage -> the numbers of its blocks."""
    found: dict[int, set[int]] = {}
    for name in tensors:
        if match := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name):
            found.setdefault(int(match[1]), set()).add(int(match[2]))
    return found


def _with_final_norm(layout: Layout, tensors: Tensors) -> Tensors:
    """Rename a publisher's only norm for the last stage, which may not be the fourth."""
    last = f"norms.{FEATURES[max(_blocks_of_stages(tensors), default=3)]}"
    if len(layout.norms) > 1:
        return tensors
    return {name.replace("norms.res5", last): value for name, value in tensors.items()}


def _add_absent_biases(checkpoint: Checkpoint) -> None:
    """Add zeros for q's and v's biases to a model that was built without any (qkv_bias=False)."""
    biases = ("attn.q_bias", "attn.v_bias", "attn.qkv.bias")
    if any(name.endswith(biases) for name in checkpoint.tensors):
        return
    for name, weight in list(checkpoint.tensors.items()):
        if name.endswith("attn.qkv.weight") and weight.ndim == 2:
            for bias in ("q_bias", "v_bias"):
                zeros = weight.new_zeros(weight.shape[1])
                checkpoint.tensors[name.replace("qkv.weight", bias)] = zeros
            checkpoint.notes = [NO_BIASES]


def _architecture(tensors: Tensors) -> Architecture | None:
    """Return the size, or None if tensors that determine it are missing."""
    stages = _blocks_of_stages(tensors)
    stem = tensors.get("patch_embed.proj.weight")
    heads = []
    for i in range(len(stages)):
        scale = tensors.get(f"layers.{i}.blocks.0.attn.logit_scale")
        if scale is None or scale.ndim == 0:
            return None
        heads.append(scale.shape[0])
    if stem is None or stem.ndim != 4:
        return None
    depths = tuple(len(stages.get(i, ())) for i in range(len(stages)))
    return Architecture(stem.shape[0], depths, tuple(heads))


def _pretrained_windows(
    checkpoint: Checkpoint,
    tables: Tensors,
    metadata: dict[str, Any],
    settings: list[tuple[list[Build], str]],
) -> PretrainedWindows | None:
    size, stages = checkpoint.architecture, len(_blocks_of_stages(checkpoint.tensors))
    try:
        found = from_tables(tables, stages) or from_metadata(metadata, stages)
        for builds, source in settings:
            if found is None and size is not None:
                rule = RULES[checkpoint.layout.name]
                found = windows_of_builds(builds, size, rule, source)
        return found
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise _unreadable(checkpoint.path, reason) from error
    except ValueError as error:
        raise _unreadable(checkpoint.path, str(error)) from error


def _has_final_norm(layout: Layout, settings: list[tuple[list[Build], str]]) -> bool:
    """Return False for the publishers' models that have none: backbones, not classifiers."""
    builds = [build for found, _ in settings for build in found]
    backbone = any(
        build.place or "Swinv2Backbone" in (build.settings.get("architectures") or ())
        for build in builds
    )
    return not (layout is FEATURES_ONLY or layout is HUGGING_FACE and backbone)


def _small_map_rule(path: Path, metadata: dict[str, Any]) -> str | None:
    stated = metadata.get("small_map_rule")
    if stated is not None and stated not in SMALL_MAP_RULES:
        raise ValueError(
            f"{path}: the small_map_rule in our notes must be one of "
            f"{', '.join(SMALL_MAP_RULES)}, got {stated!r:.200}"
        )
    return stated


def _unreadable(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path}: the pretrained windows cannot be read: {reason}")
