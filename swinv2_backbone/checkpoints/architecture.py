"""The size of a SwinV2, as read from a file or from a built model."""

from __future__ import annotations

from typing import NamedTuple

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.variants import VARIANTS, variant_name


class Architecture(NamedTuple):
    """The size of a SwinV2; a model built from it may have fewer stages."""

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]

    def __str__(self) -> str:
        names = [name for name in VARIANTS if architecture_of(name) == self]
        known = f" ({', '.join(names)})" if names else ""
        return f"{self.embed_dim} channels, depths {self.depths}, heads {self.num_heads}{known}"

    def first(self, stages: int) -> Architecture:
        """Return the size of the first ``stages`` stages."""
        return Architecture(self.embed_dim, self.depths[:stages], self.num_heads[:stages])


def architecture_of(name: str) -> Architecture:
    """Return the size of a variant, by its name or its seed name."""
    variant = VARIANTS[variant_name(name)]
    return Architecture(variant.embed_dim, variant.depths, variant.num_heads)


def built_architecture(backbone: SwinV2) -> Architecture:
    """Return the size of a model; stages that are not built are left out."""
    blocks = [list(stage.blocks) for stage in backbone.layers]
    return Architecture(
        backbone.embed_dim,
        tuple(len(stage) for stage in blocks),
        tuple(len(stage[0].attn.logit_scale) for stage in blocks),
    )
