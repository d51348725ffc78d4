"""timm since 0.9: Microsoft's names, but merging starts a stage, as in ours."""

from swinv2_backbone.checkpoints.layouts.layout import BLOCK, STEM, Layout

TIMM = Layout(
    name="timm",
    stem=STEM,
    downsample="layers.{i}.downsample",
    blocks="layers.{i}.blocks",
    in_block=BLOCK,
    norms={"norms.res5": "norm"},
    head="head.fc",
    small_map_rule="per_axis",
)
