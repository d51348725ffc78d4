"""Recognizing the layout of a file by its structure, and other model families by their keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from swinv2_backbone.checkpoints.layouts.hugging_face import HUGGING_FACE
from swinv2_backbone.checkpoints.layouts.layout import Layout
from swinv2_backbone.checkpoints.layouts.microsoft import MICROSOFT, SIMMIM
from swinv2_backbone.checkpoints.layouts.mmpretrain import MMPRETRAIN
from swinv2_backbone.checkpoints.layouts.native import NATIVE
from swinv2_backbone.checkpoints.layouts.timm import FEATURES_ONLY, TIMM
from swinv2_backbone.checkpoints.layouts.torchvision import TORCHVISION

LAYOUTS = (NATIVE, TIMM, MICROSOFT, SIMMIM, FEATURES_ONLY, HUGGING_FACE, MMPRETRAIN, TORCHVISION)

# Keys of the state dict in a file.  Averaged weights are preferred.
WRAPPERS = ("model_ema", "state_dict_ema", "model", "state_dict")

SWIN2SR = "Swin2SR, whose blocks are SwinV2's, but neither its stages nor its patches"

# Other model families, by the pattern of a key that no SwinV2 has; the first match counts.
FAMILIES = (
    (r"(^|\.)swin2sr\.|stages\.0\.layers\.0\.attention\.self\.logit_scale$", SWIN2SR),
    (r"residual_group\.blocks\.0\.attn\.logit_scale$", SWIN2SR),
    (r"attn\.meta_mlp\.fc1\.", "timm's swinv2_cr, an independent model"),
    (r"(^|\.)cls_token$", "a plain Vision Transformer, or a relative of it"),
    (r"attn\.(w_msa\.)?relative_position_bias_table$", "Swin Transformer V1, or a relative of it"),
    (r"(^|\.)pos_embed$", "a plain Vision Transformer, or a relative of it"),
    (r"\.(dwconv|conv_dw|depthwise_conv)\.", "a ConvNeXt, or a relative of it"),
    (r"(layer1|res2)\.0\.conv1\.weight$", "a ResNet"),
)


class Found(NamedTuple):
    """The layout of a state dict, and the place of a SwinV2 in it.

    Attributes:
        layout: the publisher's layout.
        prefix: the prefix of the backbone's names.
        strangers: prefixes of other backbones within this prefix.
    """

    layout: Layout
    prefix: str
    strangers: tuple[str, ...] = ()

    @property
    def outer(self) -> str:
        """The prefix of the head."""
        return self.prefix.removesuffix(self.layout.root)

    def has(self, key: str) -> bool:
        """Return True for a key of the backbone."""
        return key.startswith(self.prefix) and not key.startswith(self.strangers or "\0")


def unwrap(content: Any) -> tuple[Mapping[str, Any], str | None]:
    """Return the state dict in the content of a file, and its key there.

    If there are several, return the first with a SwinV2, else the first.  A key other than those of
    ``WRAPPERS`` counts only if it is the only one with a SwinV2.

    Raises:
        ValueError: there is no state dict, or several under keys of the user's own.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"expected a state dict, got {type(content).__name__}")
    candidates: list[tuple[Any, str | None]] = [(content.get(key), key) for key in WRAPPERS]
    candidates.append((content, None))
    own = [(state, str(key)) for key, state in content.items() if key not in WRAPPERS]
    states = [(state, key) for state, key in [*candidates, *own] if _has_tensors(state)]
    if not states:
        names = ", ".join(map(str, list(content)[:5]))
        raise ValueError(f"no state dict: neither one of {WRAPPERS} nor a tensor; it has {names}")
    found = [(state, key) for state, key in states if _prefixes(state)]
    keys = [key for _, key in found]
    if len(found) > 1 and keys[0] not in (*WRAPPERS, None):
        raise ValueError(f"{len(found)} state dicts with a SwinV2, {keys}: save the one to load")
    return (found or states)[0]


def _has_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(v, Tensor) for v in value.values())


def _prefixes(keys: Iterable[Any]) -> set[str]:
    """Return the prefixes of the landmarks of all layouts."""
    return {
        key.removesuffix(layout.landmark)
        for layout in LAYOUTS
        for key in keys
        if isinstance(key, str) and f".{key}".endswith(f".{layout.landmark}")
    }


def recognize(keys: Iterable[str], prefix: str | None = None) -> Found:
    """Find the SwinV2 in a state dict.

    Args:
        keys: all keys of the state dict.
        prefix: the prefix of the backbone's names, for a state dict with several backbones.

    Raises:
        ValueError: there is no SwinV2 (or another model family), or more than one.
    """
    keys = list(keys)
    prefixes = _prefixes(keys)
    chosen = prefixes if prefix is None else prefixes & {prefix}
    if not chosen:
        raise ValueError(_no_swinv2(keys, prefix))
    if len(chosen) > 1:
        raise ValueError(
            f"{len(chosen)} backbones, under the prefixes {sorted(chosen)}: "
            "choose one with load_checkpoint(..., prefix=...)"
        )
    (found,) = chosen
    strangers = tuple(p for p in prefixes if p != found and p.startswith(found))
    inside = [key.removeprefix(found) for key in keys if key.startswith(found)]
    return Found(_layout(inside), found, strangers)


def _layout(keys: list[str]) -> Layout:
    """Return the layout of keys without prefix; layouts with one landmark differ in structure."""
    fitting = [layout for layout in LAYOUTS if layout.landmark in keys]
    if NATIVE not in fitting:
        return fitting[0]
    if any(".attn.rpe_mlp." in key for key in keys):
        return SIMMIM
    if any(key.startswith("norms.") for key in keys):
        return NATIVE
    if any(key.startswith("layers.0.downsample.") for key in keys):
        return MICROSOFT
    return TIMM


def _no_swinv2(keys: list[str], prefix: str | None) -> str:
    for pattern, family in FAMILIES:
        match = next((key for key in keys if re.search(pattern, key)), None)
        if match:
            return f"this is {family} (it has {match!r}), not a Swin Transformer V2"
    where = "" if prefix is None else f" under the prefix {prefix!r}"
    return (
        f"no Swin Transformer V2 of a known layout{where}: none of the keys ends with one of "
        f"{sorted({layout.landmark for layout in LAYOUTS})}; the first keys are {keys[:3]}"
    )
