"""Writing a model's weights in any layout, so that a backbone can go back to where it came from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swinv2_backbone.backbone import FEATURES, SwinV2
from swinv2_backbone.checkpoints.files import METADATA, SAFETENSORS, write_file
from swinv2_backbone.checkpoints.layouts.hugging_face import HUGGING_FACE
from swinv2_backbone.checkpoints.layouts.layout import Layout, Tensors
from swinv2_backbone.checkpoints.layouts.microsoft import MICROSOFT
from swinv2_backbone.checkpoints.layouts.mmpretrain import MMPRETRAIN
from swinv2_backbone.checkpoints.layouts.native import NATIVE
from swinv2_backbone.checkpoints.layouts.timm import TIMM
from swinv2_backbone.checkpoints.layouts.torchvision import TORCHVISION
from swinv2_backbone.checkpoints.load import find_backbone
from swinv2_backbone.classifier import SwinV2Classifier
from swinv2_backbone.position_bias import log_spaced_offsets, offset_index
from swinv2_backbone.windows import Size

# What --to takes.  "detectron2" has our names, in the wrapper that Detectron2's own checkpointer
# reads, which finds the place of the backbone in a detector by itself.
TARGETS: dict[str, Layout] = {
    "native": NATIVE,
    "detectron2": NATIVE,
    "timm": TIMM,
    "microsoft": MICROSOFT,
    "huggingface": HUGGING_FACE,
    "mmpretrain": MMPRETRAIN,
    "torchvision": TORCHVISION,
}
WITH_TABLES = ("microsoft", "mmpretrain", "torchvision")  # whose models keep these as buffers


def notes_of(backbone: SwinV2) -> dict[str, Any]:
    """What a file of ours says of its backbone beside the weights."""
    return {
        "window_sizes": [list(window) for window in backbone.window_sizes],
        "pretrained_window_sizes": [list(p) for p in backbone.pretrained_window_sizes],
    }


def save_checkpoint(
    model: SwinV2 | SwinV2Classifier,
    path: str | os.PathLike,
    to: str = "native",
    *,
    overwrite: bool = False,
) -> list[str]:
    """Write the weights of a backbone or a classifier in the layout of a publisher.

    Args:
        model: of anything else around a backbone, the backbone is written.
        path: .safetensors, .pth, .pt or .bin; for "huggingface" also a folder, which becomes one
            that ``from_pretrained`` takes.
        to: a key of ``TARGETS``.
        overwrite: replace what is there.

    Returns:
        The tensors of the model for which the layout has no place.

    Raises:
        ValueError: the layout cannot hold the model, or the suffix is unknown.
        FileExistsError: the file is there and ``overwrite`` is not given.
    """
    if to not in TARGETS:
        raise ValueError(f"unknown layout {to!r}; there are: {', '.join(TARGETS)}")
    path, (_, backbone) = Path(os.path.expanduser(path)), find_backbone(model)
    if to == "detectron2" and path.suffix != ".pth":
        raise ValueError(f"{path}: Detectron2's checkpointer reads .pth files")
    if to == "detectron2" or not isinstance(model, SwinV2Classifier):
        model = backbone  # no detector of theirs has a classifier's head
    content, left = to_layout(model, to)
    config = None
    if to == "huggingface":
        config = hugging_face_config(model)
        if not path.suffix:
            path = path / "model.safetensors"
        beside = path.with_name("config.json")
        if beside.exists() and not overwrite:
            raise FileExistsError(f"{beside} exists; give --overwrite to replace it")
    notes = notes_of(backbone)
    wrap = _WRAPPERS.get(to) if path.suffix != SAFETENSORS else None
    write_file(path, wrap(content, notes) if wrap else content, notes, overwrite)
    if config is not None:
        beside.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
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


def to_layout(model: SwinV2 | SwinV2Classifier, to: str) -> tuple[Tensors, list[str]]:
    """The tensors of a model under a publisher's names, and our names that have no place there.

    Raises:
        ValueError: weights that matter would be lost.
    """
    layout, (place, backbone) = TARGETS[to], find_backbone(model)
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    inside = {n.removeprefix(place): v for n, v in state.items() if n.startswith(place)}
    if len(layout.norms) == 1:  # the last stage's, which need not be the fourth
        last = f"norms.{FEATURES[len(backbone.layers) - 1]}."
        inside = {name.replace(last, "norms.res5."): value for name, value in inside.items()}
    arranged = layout.from_ours(inside)
    # Only a classifier has the publisher's root: bare backbones stand without.
    root = layout.root if place else ""
    content, left = {}, []
    for ours, value in arranged.items():
        theirs = layout.theirs(ours)
        if theirs is None:
            left.append(ours)
        else:
            content[root + theirs] = value
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


def _tables(backbone: SwinV2, layout: Layout, root: str) -> Tensors:
    """The buffers of the models that keep them, which also carry the pretrained windows."""
    found = {}
    for i, stage in enumerate(backbone.layers):
        window, pretrained = stage.window_size, backbone.pretrained_window_sizes[i]
        index = offset_index(window, torch.device("cpu"))
        if layout is not TORCHVISION:  # where it is flat
            index = index.view(window[0] * window[1], -1)
        for j in range(len(stage.blocks)):
            beside = root + layout.theirs(f"layers.{i}.blocks.{j}.attn.logit_scale")
            found[beside.replace("logit_scale", "relative_position_index")] = index.long()
            found[beside.replace("logit_scale", "relative_coords_table")] = coords_table(
                window, pretrained
            )
    return found


def coords_table(window: Size, pretrained: Size) -> Tensor:
    """(1, 2 Mh - 1, 2 Mw - 1, 2) log-spaced coordinates of every offset in a window."""
    device = torch.device("cpu")
    axes = [log_spaced_offsets(m, p, device, torch.float32) for m, p in zip(window, pretrained)]
    return torch.stack(torch.meshgrid(axes, indexing="ij"), dim=-1)[None]


def hugging_face_config(model: nn.Module) -> dict[str, Any]:
    """The config.json of a model.

    Raises:
        ValueError: Hugging Face's model cannot have these windows.
    """
    _, backbone = find_backbone(model)
    windows, pretrained = backbone.window_sizes, backbone.pretrained_window_sizes
    side = windows[-1][0] * 4 * 2 ** (len(windows) - 1)  # the last stage's map is one window
    # It has one square window, which shrinks to the map.
    possible = tuple((min(windows[0][0], side // 4 // 2**i),) * 2 for i in range(len(windows)))
    square = all(h == w for h, w in (*windows, *pretrained))
    if windows != possible or not square:
        raise ValueError(
            f"Hugging Face's SwinV2 has one square window for all stages, not {windows} with the "
            f"pretrained windows {pretrained}: set another window first"
        )
    config = {
        "model_type": "swinv2",
        "architectures": ["Swinv2Model"],
        "image_size": side,
        "patch_size": 4,
        "num_channels": backbone.in_channels,
        "embed_dim": backbone.patch_embed.proj.out_channels,
        "depths": [len(stage.blocks) for stage in backbone.layers],
        "num_heads": [len(stage.blocks[0].attn.logit_scale) for stage in backbone.layers],
        "window_size": windows[0][0],
        "pretrained_window_sizes": [p for p, _ in pretrained],
        "mlp_ratio": 4.0,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "use_absolute_embeddings": False,
        "encoder_stride": 32,
    }
    if isinstance(model, SwinV2Classifier):
        classes = model.head.out_features
        config["architectures"] = ["Swinv2ForImageClassification"]
        config["id2label"] = {str(i): f"LABEL_{i}" for i in range(classes)}
        config["label2id"] = {f"LABEL_{i}": i for i in range(classes)}
    return config
