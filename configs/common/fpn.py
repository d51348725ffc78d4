"""SwinV2-T under an FPN with p2 ... p6."""

from detectron2.config import LazyCall as L
from detectron2.modeling import FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from swinv2_backbone.d2 import D2SwinV2

backbone = L(FPN)(
    bottom_up=L(D2SwinV2)(
        variant="swinv2_tiny_window8_256",  # so the pretrained window is 8
        window_size=16,
        drop_path_rate=0.2,
        out_features=["res2", "res3", "res4", "res5"],
    ),
    in_features="${.bottom_up.out_features}",
    out_channels=256,
    top_block=L(LastLevelMaxPool)(),
)
