"""The sources of the pretrained windows in and beside a weight file.

In order of preference: the table of offsets in the file; our own notes in it; the settings of the
training in it; the config.json beside it.  A published name in the file name, or the sizes of a
published model, are no source, as weights that were trained further at another window have them
too; they only explain what may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swinv2_backbone.checkpoints.architecture import Architecture, architecture_of
from swinv2_backbone.checkpoints.built_windows import per_stage
from swinv2_backbone.checkpoints.pretrained_window import PretrainedWindows
from swinv2_backbone.checkpoints.records import read_record
from swinv2_backbone.packing import Size
from swinv2_backbone.position_bias import log_spaced_offsets
from swinv2_backbone.variants import RELEASES, VARIANTS


def from_tables(tables: Mapping[str, Tensor], stages: int) -> PretrainedWindows | None:
    """Read the pretrained windows from the ``relative_coords_table`` buffers, by our names.

    Raises:
        ValueError: a table does not hold log-spaced offsets, the tables of a stage disagree, or
            some stages have no table.
    """
    found: dict[int, tuple[Size, Size]] = {}  # stage -> pretrained window, window
    for name, table in tables.items():
        stage = int(name.split(".")[1])
        pair = _read_table(name, table)
        if found.setdefault(stage, pair) != pair:
            raise ValueError(f"{name} disagrees with its stage's others: {pair}, {found[stage]}")
    if not found:
        return None
    if sorted(found) != list(range(stages)):
        raise ValueError(f"relative_coords_table is missing: stages {sorted(found)} of {stages}")
    pretrained, windows = zip(*(found[stage] for stage in range(stages)))
    return PretrainedWindows(pretrained, "relative_coords_table in the file", windows)


def _read_table(name: str, table: Tensor) -> tuple[Size, Size]:
    """Return (pretrained window p, window M) of a table (1, 2 Mh - 1, 2 Mw - 1, 2).

    The largest coordinate of an axis is ``t = log2(1 + 8 (M - 1) / (p - 1)) / log2(8)``, so
    ``p = 1 + 8 (M - 1) / (8 ** t - 1)``.
    """
    shape = tuple(table.shape)
    if not table.is_floating_point():
        raise ValueError(f"{name} is {table.dtype}")
    if len(shape) != 4 or shape[0] != 1 or shape[3] != 2 or not shape[1] % 2 == shape[2] % 2 == 1:
        raise ValueError(f"{name} must be (1, 2 Mh - 1, 2 Mw - 1, 2), got {shape}")
    tolerance = 1e-4 if table.dtype in (torch.float32, torch.float64) else 1e-2
    table = table.double()
    window = (shape[1] + 1) // 2, (shape[2] + 1) // 2
    largest = table[0, -1, -1].tolist()
    if not all(0 < t < 10 or m == 1 for m, t in zip(window, largest)):
        raise ValueError(f"{name} is not a table of log-spaced offsets: the largest are {largest}")
    ph, pw = (_pretrained_length(m, t) for m, t in zip(window, largest))
    axes = [log_spaced_offsets(m, p, table.device, table.dtype) for m, p in zip(window, (ph, pw))]
    expected = torch.stack(torch.meshgrid(axes, indexing="ij"), dim=-1)
    if not (table[0] - expected).abs().max() <= tolerance:
        raise ValueError(f"{name} is not a table of log-spaced offsets for any whole window")
    return (ph, pw), window


def _pretrained_length(length: int, largest: float) -> int:
    """Return the side of the pretrained window; 1 for a window of one token, which fits any.

    Args:
        length: the window's side.
        largest: the largest coordinate of the axis.
    """
    return 1 if length == 1 else round(1 + 8 * (length - 1) / (8**largest - 1))


def from_metadata(metadata: Mapping[str, Any], stages: int) -> PretrainedWindows | None:
    """Read the pretrained windows from our notes in a file.

    Raises:
        ValueError: the notes do not have one window for each of the ``stages``.
    """
    pretrained, windows = (metadata.get(k) for k in ("pretrained_window_sizes", "window_sizes"))
    if pretrained is None:
        return None
    return PretrainedWindows(
        _windows(pretrained, stages),
        "our notes in the file",
        None if windows is None else _windows(windows, stages),
    )


def _windows(given: Any, stages: int) -> tuple[Size, ...]:
    """Return one (height, width) per stage from a number or a pair for each."""
    if not isinstance(given, list | tuple) or len(given) != stages:
        raise ValueError(f"one window for each of {stages} stages is needed, got {given!r:.200}")
    return per_stage(given, stages)


def settings_beside(path: Path) -> Any:
    """Return the config.json that Hugging Face and timm put beside their weights; None without one.

    Raises:
        ValueError: it is damaged.
    """
    config = path.with_name("config.json")
    if not config.is_file() or not _is_of_its_config(path):
        return None
    stated = read_record(config, "copy it again, or delete it and state the pretrained windows")
    if not isinstance(stated, dict):
        raise ValueError(f"{config} has no settings, but {stated!r:.50}")
    return stated


def _is_of_its_config(path: Path) -> bool:
    """Return True if a config.json in the same folder is that of this file.

    That is so for the names that Hugging Face and timm write, and for the only weights there.
    """
    if re.match(r"(pytorch_)?model(\.[\w-]+)?(-\d+-of-\d+)?\.(safetensors|bin)$", path.name):
        return True
    weights = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")
    return not any(
        other.suffix in weights and other.name != path.name for other in path.parent.iterdir()
    )


def suggestion(path: Path, architecture: Architecture | None) -> str:
    """Return the pretrained windows of the published models that a file may be, for a message."""
    fitting = [name for name in VARIANTS if architecture_of(name) == architecture]
    stem = path.stem.lower().replace("patch4_", "").replace("-", "_")
    names = {name: name for name in fitting}
    names |= {
        release.seed_name.replace("-", "_"): name
        for name, release in RELEASES.items()
        if name in fitting
    }
    named = [
        variant
        for published, variant in names.items()
        if re.search(rf"(?<![a-z0-9]){re.escape(published)}(?![a-z0-9])", stem)
    ]
    windows: dict[tuple[int, ...], str] = {}
    for name in named or fitting:
        windows.setdefault(VARIANTS[name].pretrained_window_sizes, name)
    return " or ".join(f"{list(sizes)} for {name}" for sizes, name in windows.items())
