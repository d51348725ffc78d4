"""A weight file under our names, whatever its layout: the half of loading that knows no model."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from swinv2_backbone.checkpoints.files import IN_FOLDER, read_file
from swinv2_backbone.checkpoints.layout import Layout, Tensors
from swinv2_backbone.checkpoints.normaliser import (
    Architecture,
    Normaliser,
    from_config,
    from_metadata,
    from_name,
    from_shapes,
    from_tables,
)
from swinv2_backbone.checkpoints.recognise import Found, recognise, unwrap

TABLE = "relative_coords_table"

# What files hold that no model needs, by the last part of its name.
DROPPED = {
    TABLE: "made from the window; the normaliser is read from it",
    "relative_position_index": "made from the window",
    "attn_mask": "made from the map",
    "mask_token": "stands for hidden patches in SimMIM",
}


@dataclass
class Checkpoint:
    """The weights of a SwinV2, and of what is around it, as a file has them.

    Attributes:
        path: the file.
        layout: of the publisher.
        tensors: of the backbone, by our names.
        keys: our name -> the key in the file.
        head: ``weight`` and ``bias`` of the classifier, if there is one.
        others: what belongs to something around the backbone, by the file's keys.
        dropped: key in the file -> why nobody needs it.
        unexpected: keys among the backbone's that the layout does not know.
        architecture: the size of the backbone.
        normaliser: None if nothing says it.
        wrapper: where the state dict stood in the file.
    """

    path: Path
    layout: Layout
    tensors: Tensors = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    head: Tensors = field(default_factory=dict)
    others: Tensors = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    architecture: Architecture | None = None
    normaliser: Normaliser | None = None
    wrapper: str | None = None


def read_checkpoint(path: str | Path, prefix: str | None = None) -> Checkpoint:
    """Read a weight file of any layout.

    Args:
        path: the file, or a folder with the file of a Hugging Face model.
        prefix: of the backbone's names, for a file with several backbones.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, unsafe, or holds no SwinV2 (or another family).
    """
    path = _in_folder(Path(path))
    value, metadata = read_file(path)
    try:
        state, wrapper = unwrap(value)
        found = recognise([key for key in state if isinstance(key, str)], prefix)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    checkpoint = Checkpoint(path, found.layout, wrapper=wrapper)
    tables = {}
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor):
            checkpoint.dropped[str(key)] = "not a tensor"
        else:
            _sort(checkpoint, found, key, tensor, tables)
    checkpoint.tensors = found.layout.to_ours(checkpoint.tensors)
    checkpoint.architecture = _architecture(checkpoint.tensors)
    checkpoint.normaliser = _normaliser(checkpoint, tables, metadata)
    return checkpoint


def _in_folder(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in IN_FOLDER:
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"the folder {str(path)!r} has none of {', '.join(IN_FOLDER)}")


def _sort(checkpoint: Checkpoint, found: Found, key: str, tensor: Tensor, tables: Tensors) -> None:
    """Put one tensor of the file where it belongs."""
    layout, last = found.layout, key.rpartition(".")[2]
    head = f"{found.outer}{layout.head}."
    inner = key.removeprefix(found.prefix)
    if key.startswith(head):
        checkpoint.head[key.removeprefix(head)] = tensor
    elif not key.startswith(found.prefix):
        checkpoint.others[key] = tensor
    elif last in DROPPED:
        checkpoint.dropped[key] = DROPPED[last]
        if last == TABLE:
            # Under our name of the logit_scale beside it, which every layout has.
            ours = layout.ours(layout_sibling(inner))
            if ours is not None:
                tables[ours] = tensor
    elif (ours := layout.ours(inner)) is not None:
        checkpoint.tensors[ours] = tensor
        checkpoint.keys[ours] = key
    else:
        checkpoint.unexpected.append(f"{key} {tuple(tensor.shape)}")


def layout_sibling(key: str) -> str:
    return key.removesuffix(TABLE) + "logit_scale"


def _architecture(tensors: Tensors) -> Architecture | None:
    """The size that the tensors tell, if the tensors that tell it are there."""
    blocks: dict[int, int] = {}
    for name in tensors:
        if match := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name):
            stage, block = int(match[1]), int(match[2])
            blocks[stage] = max(blocks.get(stage, 0), block + 1)
    stages = range(len(blocks))
    stem = tensors.get("patch_embed.proj.weight")
    scales = [tensors.get(f"layers.{i}.blocks.0.attn.logit_scale") for i in stages]
    if stem is None or stem.ndim == 0 or any(s is None or s.ndim == 0 for s in scales):
        return None
    depths = tuple(blocks.get(i, 0) for i in stages)
    return Architecture(stem.shape[0], depths, tuple(scale.shape[0] for scale in scales))


def _normaliser(checkpoint: Checkpoint, tables: Tensors, metadata: dict) -> Normaliser | None:
    architecture, path = checkpoint.architecture, checkpoint.path
    if architecture is None:
        return None  # the tensors that are missing will be named
    try:
        return (
            from_tables(tables, len(architecture.depths))
            or from_metadata(metadata)
            or from_config(path.parent, checkpoint.layout.name, architecture)
            or from_name(path, architecture)
            or from_shapes(architecture)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: the normaliser cannot be read: {error}") from error
