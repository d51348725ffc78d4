"""UPerNet on SwinV2-T."""

from detectron2.config import LazyCall as L
from detectron2.modeling import SemanticSegmentor

from swinv2_backbone.d2 import D2SwinV2, UPerNetHead, feature_shapes

model = L(SemanticSegmentor)(
    backbone=L(D2SwinV2)(
        variant="swinv2_tiny_window8_256",  # so the pretrained window is 8
        embed_dim=None,
        window_size=16,
        drop_path_rate=0.3,
    ),
    sem_seg_head=L(UPerNetHead)(
        input_shape=L(feature_shapes)(
            variant="${...backbone.variant}", embed_dim="${...backbone.embed_dim}"
        ),
        num_classes=150,
        channels=512,
        norm="SyncBN",
    ),
    pixel_mean=[123.675, 116.280, 103.530],  # RGB
    pixel_std=[58.395, 57.120, 57.375],
)
