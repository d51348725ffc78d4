"""Which layout a file has, found out by its structure; other families are refused by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from swinv2_backbone.checkpoints.hugging_face import HUGGING_FACE
from swinv2_backbone.checkpoints.layout import Layout
from swinv2_backbone.checkpoints.microsoft import MICROSOFT, SIMMIM
from swinv2_backbone.checkpoints.mmpretrain import MMPRETRAIN
from swinv2_backbone.checkpoints.native import NATIVE
from swinv2_backbone.checkpoints.timm import TIMM
from swinv2_backbone.checkpoints.torchvision import TORCHVISION

LAYOUTS = (NATIVE, TIMM, MICROSOFT, SIMMIM, HUGGING_FACE, MMPRETRAIN, TORCHVISION)

# Where files keep their weights.  Averaged weights come first: they are those to be used.
WRAPPERS = ("model_ema", "state_dict_ema", "model", "state_dict")

# Other families, by a key that theirs have and SwinV2's do not.  The first that fits.
FAMILIES = (
    (r"relative_position_bias_table$", "Swin Transformer V1"),
    (r"attn\.meta_mlp\.fc1\.", "timm's swinv2_cr, an independent model that is not SwinV2"),
    (r"(^|\.)cls_token$|(^|\.)pos_embed$", "a plain Vision Transformer"),
    (r"dwconv\.|conv_dw\.|depthwise_conv\.", "a ConvNeXt"),
    (r"(layer1|res2)\.0\.conv1\.weight$|encoder\.stages\.0\.layers\.0\.layer\.", "a ResNet"),
)


class Found(NamedTuple):
    """Where the weights of a SwinV2 stand in a state dict."""

    layout: Layout
    prefix: str  # of the names of the backbone

    @property
    def outer(self) -> str:
        """The prefix of the head."""
        return self.prefix.removesuffix(self.layout.root)


def unwrap(content: Any) -> tuple[Mapping[str, Any], str | None]:
    """The state dict in what a file holds, and the name under which it stood there.

    Raises:
        ValueError: there is none.
    """
    if isinstance(content, Mapping):
        for wrapper in WRAPPERS:
            if isinstance(content.get(wrapper), Mapping) and _has_tensors(content[wrapper]):
                return content[wrapper], wrapper
        if _has_tensors(content):
            return content, None
        names = ", ".join(map(str, list(content)[:5]))
        raise ValueError(f"no state dict: there is neither one of {WRAPPERS} nor a tensor: {names}")
    raise ValueError(f"no state dict but {type(content).__name__}")


def _has_tensors(mapping: Mapping) -> bool:
    return any(isinstance(value, Tensor) for value in mapping.values())


def recognise(keys: Iterable[str], prefix: str | None = None) -> Found:
    """The layout of a state dict with these keys, and what stands before its names.

    Args:
        keys: of the whole state dict.
        prefix: where to look, for a state dict with several backbones.

    Raises:
        ValueError: there is no SwinV2, another family, or more than one SwinV2.
    """
    keys = list(keys)
    prefixes = {
        key.removesuffix(layout.landmark)
        for layout in LAYOUTS
        for key in keys
        if key == layout.landmark or key.endswith(f".{layout.landmark}")
    }
    # "encoder." belongs to the names of Hugging Face, and is a prefix of others.
    if prefix is not None:
        prefixes &= {prefix}
    if not prefixes:
        raise ValueError(_no_swinv2(keys, prefix))
    if len(prefixes) > 1:
        raise ValueError(
            f"{len(prefixes)} backbones, under the prefixes {sorted(prefixes)}: "
            "choose by load_checkpoint(..., prefix=...)"
        )
    (found,) = prefixes
    inside = [key.removeprefix(found) for key in keys if key.startswith(found)]
    return Found(_layout(inside), found)


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
