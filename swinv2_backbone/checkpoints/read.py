"""A weight file under our names, whatever its layout: the half of loading that knows no model."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from swinv2_backbone.backbone import FEATURES
from swinv2_backbone.checkpoints.files import IN_FOLDER, Content, read_file
from swinv2_backbone.checkpoints.layouts.layout import Layout, Tensors
from swinv2_backbone.checkpoints.layouts.native import NATIVE
from swinv2_backbone.checkpoints.pretrained_window import (
    Architecture,
    PretrainedWindows,
    from_config,
    from_metadata,
    from_name,
    from_shapes,
    from_tables,
)
from swinv2_backbone.checkpoints.recognize import Found, recognize, unwrap

TABLE = "relative_coords_table"

# What files hold that no model needs, by the last part of its name.
DROPPED = {
    TABLE: "made from the window; the pretrained window is read from it",
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
        prefix: of the names of the backbone in the file.
        keys: our name -> the key in the file.
        head: ``weight`` and ``bias`` of the classifier, if there is one.
        others: what belongs to something around the backbone, by the file's keys.
        dropped: key in the file -> why nobody needs it.
        unexpected: keys among the backbone's that the layout does not know.
        architecture: the size of the backbone.
        pretrained_windows: None if no source gives them.
        wrapper: where the state dict stood in the file.
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
    return interpret(path, read_file(path), prefix)


def interpret(path: Path, content: Content, prefix: str | None = None) -> Checkpoint:
    """:func:`read_checkpoint` for what has been read from ``path``."""
    try:
        state, wrapper = unwrap(content.value)
        found = recognize([key for key in state if isinstance(key, str)], prefix)
        checkpoint = Checkpoint(path, found.layout, found.prefix, wrapper=wrapper)
        tables: Tensors = {}
        for key, tensor in state.items():
            if not isinstance(tensor, Tensor) or not isinstance(key, str):
                checkpoint.dropped[str(key)] = "not a tensor with a name"
            else:
                _check_plain(key, tensor)
                _sort(checkpoint, found, key, tensor, tables)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    checkpoint.tensors = _with_final_norm(found.layout, found.layout.to_ours(checkpoint.tensors))
    checkpoint.architecture = _architecture(checkpoint.tensors)
    checkpoint.pretrained_windows = _pretrained_windows(checkpoint, tables, content.metadata)
    return checkpoint


def _in_folder(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in IN_FOLDER:
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"the folder {str(path)!r} has none of {', '.join(IN_FOLDER)}")


def _check_plain(key: str, tensor: Tensor) -> None:
    """Raise ValueError for a tensor that is not simply numbers in memory."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_nested:
        kind = "without data" if tensor.is_meta else "sparse, quantised or nested"
        raise ValueError(f"the tensor {key!r} is {kind}: only plain ones are read")


def _sort(checkpoint: Checkpoint, found: Found, key: str, tensor: Tensor, tables: Tensors) -> None:
    """Put one tensor of the file where it belongs."""
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
        # Under our name of the logit_scale beside it, which every layout has.
        ours = layout.ours(inner.removesuffix(TABLE) + "logit_scale") if last == TABLE else None
        if ours is not None:
            tables[ours] = tensor
    elif (ours := layout.ours(inner)) is not None:
        checkpoint.tensors[ours] = tensor
        checkpoint.keys[ours] = key
    else:
        checkpoint.unexpected.append(f"{key} {tuple(tensor.shape)}")


def _stages(tensors: Tensors) -> dict[int, set[int]]:
    """The numbers of the stages, and of the blocks in each."""
    found: dict[int, set[int]] = {}
    for name in tensors:
        if match := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name):
            found.setdefault(int(match[1]), set()).add(int(match[2]))
    return found


def _with_final_norm(layout: Layout, tensors: Tensors) -> Tensors:
    """A publisher's one norm is that of the last stage, which need not be the fourth."""
    last = f"norms.{FEATURES[max(_stages(tensors), default=3)]}"
    if len(layout.norms) > 1:
        return tensors
    return {name.replace("norms.res5", last): value for name, value in tensors.items()}


def _architecture(tensors: Tensors) -> Architecture | None:
    """The size that the tensors tell, if the tensors that tell it are there."""
    stages = _stages(tensors)
    stem = tensors.get("patch_embed.proj.weight")
    scales = [tensors.get(f"layers.{i}.blocks.0.attn.logit_scale") for i in range(len(stages))]
    if stem is None or stem.ndim != 4 or any(s is None or s.ndim == 0 for s in scales):
        return None
    depths = tuple(len(stages.get(i, ())) for i in range(len(stages)))
    return Architecture(stem.shape[0], depths, tuple(scale.shape[0] for scale in scales))


def _pretrained_windows(
    checkpoint: Checkpoint, tables: Tensors, metadata: dict
) -> PretrainedWindows | None:
    architecture, path = checkpoint.architecture, checkpoint.path
    stages = len(_stages(checkpoint.tensors))
    try:
        found = from_tables(tables, stages) or from_metadata(metadata, stages)
        # A file of one's own may have any pretrained windows, whatever its name and size.
        if found is None and architecture is not None and checkpoint.layout is not NATIVE:
            found = (
                from_config(path.parent, checkpoint.layout.name, architecture)
                or from_name(path, architecture)
                or from_shapes(architecture)
            )
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
        raise ValueError(
            f"{path}: the pretrained windows cannot be read: {type(error).__name__}: {error}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: the pretrained windows cannot be read: {error}") from error
    return found
