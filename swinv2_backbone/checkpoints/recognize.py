"""Which layout a file has, found out by its structure; other families are refused by name."""

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
from swinv2_backbone.checkpoints.layouts.timm import TIMM
from swinv2_backbone.checkpoints.layouts.torchvision import TORCHVISION

LAYOUTS = (NATIVE, TIMM, MICROSOFT, SIMMIM, HUGGING_FACE, MMPRETRAIN, TORCHVISION)

# Where files keep their weights.  Averaged weights come first: they are those to be used.
WRAPPERS = ("model_ema", "state_dict_ema", "model", "state_dict")

# Other families, by a key that theirs have and SwinV2's do not.  The first that fits.
FAMILIES = (
    (r"attn\.meta_mlp\.fc1\.", "timm's swinv2_cr, an independent model"),
    (r"(^|\.)cls_token$", "a plain Vision Transformer, or a relative of it"),
    (r"attn\.(w_msa\.)?relative_position_bias_table$", "Swin Transformer V1, or a relative of it"),
    (r"(^|\.)pos_embed$", "a plain Vision Transformer, or a relative of it"),
    (r"\.(dwconv|conv_dw|depthwise_conv)\.", "a ConvNeXt, or a relative of it"),
    (r"(layer1|res2)\.0\.conv1\.weight$", "a ResNet"),
)


class Found(NamedTuple):
    """Where the weights of a SwinV2 stand in a state dict."""

    layout: Layout
    prefix: str  # of the names of the backbone
    strangers: tuple[str, ...] = ()  # prefixes of other backbones in the same state dict

    @property
    def outer(self) -> str:
        """The prefix of the head."""
        return self.prefix.removesuffix(self.layout.root)

    def has(self, key: str) -> bool:
        """Whether a key is one of the backbone's."""
        return key.startswith(self.prefix) and not key.startswith(self.strangers or "\0")


def unwrap(content: Any) -> tuple[Mapping[str, Any], str | None]:
    """The state dict in what a file holds, and the name under which it stood there.

    Of several, the first that holds a SwinV2.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"no state dict but {type(content).__name__}")
    wrapped = [(content.get(wrapper), wrapper) for wrapper in WRAPPERS]
    states = [(s, w) for s, w in (*wrapped, (content, None)) if _has_tensors(s)]
    if not states:
        names = ", ".join(map(str, list(content)[:5]))
        raise ValueError(f"no state dict: neither one of {WRAPPERS} nor a tensor, but {names}")
    return next((found for found in states if _prefixes(found[0])), states[0])


def _has_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(v, Tensor) for v in value.values())


def _prefixes(keys: Iterable[Any]) -> set[str]:
    """What stands before the landmarks of all layouts."""
    return {
        key.removesuffix(layout.landmark)
        for layout in LAYOUTS
        for key in keys
        if isinstance(key, str) and f".{key}".endswith(f".{layout.landmark}")
    }


def recognize(keys: Iterable[str], prefix: str | None = None) -> Found:
    """The layout of a state dict with these keys, and what stands before its names.

    Args:
        keys: of the whole state dict.
        prefix: where to look, for a state dict with several backbones.

    Raises:
        ValueError: there is no SwinV2, another family, or more than one SwinV2.
    """
    keys = list(keys)
    prefixes = _prefixes(keys)
    chosen = prefixes if prefix is None else prefixes & {prefix}
    if not chosen:
        raise ValueError(_no_swinv2(keys, prefix))
    if len(chosen) > 1:
        raise ValueError(
            f"{len(chosen)} backbones, under the prefixes {sorted(chosen)}: "
            "choose by load_checkpoint(..., prefix=...)"
        )
    (found,) = chosen
    strangers = tuple(p for p in prefixes if p != found and p.startswith(found))
    inside = [key.removeprefix(found) for key in keys if key.startswith(found)]
    return Found(_layout(inside), found, strangers)


def _layout(keys: list[str]) -> Layout:
    """The layout of keys without prefix.  Four share a landmark; structure tells them apart."""
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
