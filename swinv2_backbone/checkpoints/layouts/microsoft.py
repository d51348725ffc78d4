"""Microsoft (and timm before 0.9): merging ends a stage.  SimMIM: the same without a head."""

from dataclasses import replace

from swinv2_backbone.checkpoints.layouts.layout import BLOCK, STEM, Layout

MICROSOFT = Layout(
    name="Microsoft",
    stem=STEM,
    downsample="layers.{before}.downsample",
    blocks="layers.{i}.blocks",
    in_block=BLOCK,
    norms={"norms.res5": "norm"},
    head="head",
    small_map_rule="square",
)

# SimMIM pre-training files that predate the name cpb_mlp.
SIMMIM = replace(
    MICROSOFT,
    name="SimMIM",
    root="encoder.",
    in_block=BLOCK | {"attn.cpb_mlp": "attn.rpe_mlp"},
)
