"""timm since 0.9: Microsoft's names, but merging starts a stage, as in ours."""

from dataclasses import replace

from swinv2_backbone.checkpoints.layouts.layout import BLOCK, STEM, Layout

TIMM = Layout(
    name="timm",
    stem=STEM,
    downsample="layers.{i}.downsample",
    blocks="layers.{i}.blocks",
    in_block=BLOCK,
    norms={"norms.res5": "norm"},
    head="head.fc",
)

# Models built with features_only=True, which have no norm after the last stage, and no head; also
# the encoders of segmentation_models_pytorch.
FEATURES_ONLY = replace(
    TIMM,
    name="timm's features_only",
    downsample="layers_{i}.downsample",
    blocks="layers_{i}.blocks",
    norms={},
)
