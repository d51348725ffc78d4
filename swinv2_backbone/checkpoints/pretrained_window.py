"""What normalises the position bias of a checkpoint: the windows it was really trained with.

In order: the table of offsets in the file; our own notes in it; the config.json beside it; the
published model that its name, then its shapes, say it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.position_bias import log_spaced_offsets
from swinv2_backbone.variants import RELEASES, VARIANTS, variant_name
from swinv2_backbone.windows import Size

LARGEST = 4096  # tokens of a side of a window: beyond it, a number is a mistake


class Architecture(NamedTuple):
    """The size of a SwinV2; what is built of it may be fewer stages."""

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]

    def __str__(self) -> str:
        names = [name for name in VARIANTS if architecture_of(name) == self]
        known = f" ({', '.join(names)})" if names else ""
        return f"{self.embed_dim} channels, depths {self.depths}, heads {self.num_heads}{known}"


class PretrainedWindows(NamedTuple):
    """(height, width) per stage, and where it was read."""

    sizes: tuple[Size, ...]
    source: str
    trained_windows: tuple[Size, ...] | None = None  # the windows of the file's own model

    def __str__(self) -> str:
        return f"{describe(self.sizes)} per stage, from {self.source}"


def describe(windows: tuple[Size, ...]) -> str:
    """``16, 16, 16, 8``, or ``12x16, ...`` where height and width differ."""
    return ", ".join(str(h) if h == w else f"{h}x{w}" for h, w in windows)


def from_tables(tables: Mapping[str, Tensor], stages: int) -> PretrainedWindows | None:
    """From the ``relative_coords_table`` buffers of all ``stages``, under our names.

    Raises:
        ValueError: a table is not one of log-spaced offsets, a stage's tables disagree, or some
            stages have none.
    """
    found: dict[int, tuple[Size, Size]] = {}  # stage -> pretrained window, window
    for name, table in tables.items():
        stage = int(name.split(".")[1])
        pair = _read_table(name, table)
        if found.setdefault(stage, pair) != pair:
            raise ValueError(f"{name} disagrees with another of its stage: {pair}, {found[stage]}")
    if not found:
        return None
    if sorted(found) != list(range(stages)):
        raise ValueError(f"relative_coords_table is there for stages {sorted(found)} of {stages}")
    pretrained, windows = zip(*(found[stage] for stage in range(stages)))
    return PretrainedWindows(pretrained, "relative_coords_table in the file", windows)


def _read_table(name: str, table: Tensor) -> tuple[Size, Size]:
    """(pretrained window, window) of a table (1, 2 Mh - 1, 2 Mw - 1, 2).

    With t its largest coordinate, log2(1 + 8 (M - 1) / (p - 1)) / log2(8), of a window M:
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
        raise ValueError(f"{name} is no table of log-spaced offsets: its largest are {largest}")
    # A window of one token knows the offset 0 alone, whatever normalises it.
    pretrained = tuple(
        1 if m == 1 else round(1 + 8 * (m - 1) / (8**t - 1)) for m, t in zip(window, largest)
    )
    axes = [log_spaced_offsets(m, p, table.device, table.dtype) for m, p in zip(window, pretrained)]
    expected = torch.stack(torch.meshgrid(axes, indexing="ij"), dim=-1)
    if not (table[0] - expected).abs().max() <= tolerance:
        raise ValueError(f"{name} is no table of log-spaced offsets for any whole window")
    return pretrained, window


def from_metadata(metadata: Mapping[str, Any], stages: int) -> PretrainedWindows | None:
    """From the notes that our own files carry.

    Raises:
        ValueError: they are not one window for each of the ``stages``.
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
    """One (height, width) per stage from what a file says: of each stage a number or a pair."""
    pairs = [entry if isinstance(entry, list | tuple) else (entry, entry) for entry in given]
    whole = all(type(m) is int and 1 <= m <= LARGEST for pair in pairs for m in pair)
    if len(pairs) != stages or not whole or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"one window for each of {stages} stages is needed, got {given!r:.200}")
    return tuple((h, w) for h, w in pairs)


def from_config(folder: Path, layout: str, architecture: Architecture) -> PretrainedWindows | None:
    """From the config.json that Hugging Face and timm put beside their weights.

    Raises:
        ValueError: it is damaged, or that of another model.
    """
    path = folder / "config.json"
    if layout not in ("Hugging Face", "timm") or not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if layout == "timm":
        return _of_variant(str(config.get("architecture")), architecture, f"{path.name} beside it")
    if config.get("model_type") != "swinv2":
        return None
    for key, own in architecture._asdict().items():
        if config.get(key) not in (None, own, list(own) if isinstance(own, tuple) else own):
            raise ValueError(f"{path} is of another model: {key} {config[key]}, not {own}")
    stages, side = len(architecture.depths), config["image_size"]
    side = side if isinstance(side, int) else side[0]
    # Its one window shrinks to the map of the image that the model is built for.
    maps = [side // config["patch_size"] // 2**i for i in range(stages)]
    windows = _windows([min(config["window_size"], m) for m in maps], stages)
    pretrained = [p or m for p, (m, _) in zip(config["pretrained_window_sizes"], windows)]
    return PretrainedWindows(_windows(pretrained, stages), f"{path.name} beside it", windows)


def from_name(path: Path, architecture: Architecture) -> PretrainedWindows | None:
    """From a published name in the file's own: timm's, Microsoft's or the seed's."""
    stem = path.stem.lower().replace("patch4_", "").replace("-", "_")
    names = {name: name for name in VARIANTS}
    names |= {release.seed_name.replace("-", "_"): name for name, release in RELEASES.items()}
    for published, variant in names.items():
        if re.search(rf"(?<![a-z0-9]){re.escape(published)}(?![a-z0-9])", stem):
            return _of_variant(variant, architecture, f"its name ({variant})")
    return None


def from_shapes(architecture: Architecture) -> PretrainedWindows | None:
    """From the variants of this size, if all of them agree."""
    fitting = [name for name in VARIANTS if architecture_of(name) == architecture]
    found = {VARIANTS[name].pretrained_window_sizes for name in fitting}
    if len(found) != 1:
        return None
    return PretrainedWindows(
        tuple((p, p) for p in found.pop()), f"its shapes ({' or '.join(fitting)})"
    )


def _of_variant(name: str, architecture: Architecture, source: str) -> PretrainedWindows | None:
    name = name.partition(".")[0]
    if name not in VARIANTS or architecture_of(name) != architecture:
        return None
    variant = VARIANTS[name]
    return PretrainedWindows(
        tuple((p, p) for p in variant.pretrained_window_sizes),
        source,
        tuple((m, m) for m in variant.window_sizes),
    )


def architecture_of(name: str) -> Architecture:
    """The size of a variant, by either of its names."""
    variant = VARIANTS[variant_name(name)]
    return Architecture(variant.embed_dim, variant.depths, variant.num_heads)


def decide_pretrained_windows(
    backbone: SwinV2, found: PretrainedWindows | None, path: Path
) -> PretrainedWindows:
    """What shall normalise the position bias of ``backbone`` with the weights of ``path``.

    Raises:
        ValueError: neither the file nor the model says, or they contradict each other.
    """
    stages = len(backbone.layers)
    configured = backbone.pretrained_window_sizes
    if found is None and backbone.pretrained_windows_assumed:
        raise ValueError(
            f"{path} does not say which windows it was trained with, and neither does the model: "
            "give pretrained_window_sizes (MODEL.SWINV2.PRETRAINED_WINDOW_SIZES), or build a "
            "published variant by its name (MODEL.SWINV2.VARIANT)"
        )
    if found is None:
        return PretrainedWindows(configured, "the model; the file does not say")
    if backbone.pretrained_windows_assumed or found.sizes[:stages] == configured:
        return found
    setting = tuple(h if h == w else (h, w) for h, w in found.sizes)
    raise ValueError(
        f"{path}: the model normalises its position bias by windows of {describe(configured)}, but "
        f"the weights were trained with {describe(found.sizes[:stages])} (from {found.source}): "
        "choose the variant of the weights (MODEL.SWINV2.VARIANT), or give pretrained_window_sizes "
        f"(MODEL.SWINV2.PRETRAINED_WINDOW_SIZES) {setting}; the window itself may differ.  (If the "
        "source is wrong, tools/convert_checkpoint.py --pretrained-window-sizes writes the right "
        "one into a file.)"
    )


def apply_pretrained_windows(backbone: SwinV2, pretrained: PretrainedWindows) -> None:
    """Make it the backbone's, of which the last stages may not be built."""
    windows = pretrained.sizes[: backbone.num_stages]
    unbuilt = backbone.num_stages - len(windows)
    backbone.set_pretrained_window_sizes((*windows, *windows[-1:] * unbuilt))
