"""The semantic head of Panoptic FPN, on the p2 ... p5 of its model's ``backbone``."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead

sem_seg_head = L(SemSegFPNHead)(
    input_shape={
        name: L(ShapeSpec)(channels="${....backbone.out_channels}", stride=stride)
        for name, stride in (("p2", 4), ("p3", 8), ("p4", 16), ("p5", 32))
    },
    num_classes=54,  # of COCO: 53 of stuff, and all things together
    conv_dims=128,
    common_stride=4,
    norm="GN",
    ignore_value=255,
)
