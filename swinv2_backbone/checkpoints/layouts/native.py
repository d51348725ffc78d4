"""Our own files: a backbone, a classifier, or a detector around one of them."""

from swinv2_backbone.checkpoints.layouts.layout import BLOCK, STEM, Layout, same

NATIVE = Layout(
    name="native",
    root="backbone.",
    stem=STEM,
    downsample="layers.{i}.downsample",
    blocks="layers.{i}.blocks",
    in_block=BLOCK | same("norm3"),
    norms=same("norms.res2", "norms.res3", "norms.res4", "norms.res5"),
    head="head",
)
