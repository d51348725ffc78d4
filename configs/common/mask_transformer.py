"""MaskTransformer on SwinV2-T."""

from detectron2.config import LazyCall as L

from swinv2_backbone.d2 import D2SwinV2, MaskTransformer

model = L(MaskTransformer)(
    backbone=L(D2SwinV2)(
        variant="swinv2_tiny_window8_256",  # so the pretrained window is 8
        window_size=16,
        drop_path_rate=0.3,
    ),
    num_classes=80,
    task="instance",
    pixel_mean=[123.675, 116.280, 103.530],  # RGB
    pixel_std=[58.395, 57.120, 57.375],
)
