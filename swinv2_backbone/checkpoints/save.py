"""Saving a model's weights in our layout or a publisher's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.checkpoints.convert import TARGETS, to_layout
from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.checkpoints.files import METADATA, SAFETENSORS, write_file
from swinv2_backbone.checkpoints.hugging_face_config import hugging_face_config
from swinv2_backbone.checkpoints.layouts.layout import Tensors
from swinv2_backbone.checkpoints.target import find_backbone
from swinv2_backbone.classifier import SwinV2Classifier


def notes_of(backbone: SwinV2) -> dict[str, Any]:
    """Return the notes on a backbone that our files carry beside the weights."""
    return {
        "window_sizes": [list(window) for window in backbone.window_sizes],
        "pretrained_window_sizes": [list(p) for p in backbone.pretrained_window_sizes],
        "small_map_rule": backbone.small_map_rule,
    }


def save_checkpoint(
    model: nn.Module, path: str | os.PathLike, to: str = "native", *, overwrite: bool = False
) -> list[str]:
    """Write the weights of a backbone or a classifier in the layout of a publisher.

    Args:
        model: a :class:`SwinV2` or a :class:`SwinV2Classifier`; of any other model that
            contains a SwinV2, only the SwinV2 is written.
        path: .safetensors, .pth, .pt or .bin; with "huggingface" also a folder, to be loaded by
            ``from_pretrained``.
        to: "native", "detectron2", "timm", "microsoft", "huggingface", "mmpretrain" or
            "torchvision".
        overwrite: replace existing files.

    Returns:
        The names of the tensors that the layout has no place for.

    Raises:
        ValueError: the layout or the suffix is unknown, or the layout cannot hold the model.
        FileExistsError: the file exists and ``overwrite`` is False.
    """
    if to not in TARGETS:
        raise ValueError(f"unknown layout {to!r}; there are: {', '.join(TARGETS)}")
    path, (_, backbone) = Path(os.path.expanduser(path)), find_backbone(model)
    if to == "detectron2" and path.suffix != ".pth":
        raise ValueError(f"{path}: Detectron2's checkpointer reads .pth files")
    if to == "detectron2" or not isinstance(model, SwinV2Classifier):
        model = backbone  # detectors have no classifier head
    content, left = to_layout(model, to)
    notes = notes_of(backbone)
    if to == "huggingface":
        _write_hugging_face(model, path, content, notes, overwrite)
    else:
        wrap = _WRAPPERS.get(to) if path.suffix != SAFETENSORS else None
        write_file(path, wrap(content, notes) if wrap else content, notes, overwrite)
    return left


_WRAPPERS: dict[str, Callable[[Tensors, dict], dict]] = {
    "native": lambda tensors, notes: {"model": tensors, METADATA: notes},
    "detectron2": lambda tensors, notes: {
        "model": tensors,
        "__author__": "swinv2_backbone",
        "matching_heuristics": True,
        METADATA: notes,
    },
    "timm": lambda tensors, notes: {"state_dict": tensors, METADATA: notes},
    "microsoft": lambda tensors, notes: {"model": tensors, METADATA: notes},
    "mmpretrain": lambda tensors, notes: {"meta": {}, "state_dict": tensors, METADATA: notes},
}


def _write_hugging_face(
    model: nn.Module, path: Path, content: Tensors, notes: dict[str, Any], overwrite: bool
) -> None:
    """Write the weights and the config.json beside them; ``path`` may be a folder."""
    config = hugging_face_config(model)
    if not path.suffix:
        path = path / "model.safetensors"
    beside = path.with_name("config.json")
    if beside.exists() and not overwrite:
        raise FileExistsError(f"{beside} exists; give --overwrite to replace it")
    write_file(path, content, notes, overwrite)
    write_text(beside, json.dumps(config, indent=2) + "\n")
