"""RetinaNet with SwinV2-B under an FPN, on COCO 2017 (in the folder $DETECTRON2_DATASETS):

tools/lazyconfig_train_net.py --config-file configs/retinanet_swinv2_base.py --num-gpus 8

Recipe: untrained. The one of retinanet_swinv2_tiny, with drop path 0.3 as the other models with B.
Weights of ImageNet-22k, pre-trained at window 12 (which normalizes the position bias), used at
window 16 as the smaller models are.

Published: nothing that we know of with RetinaNet and Swin-B, neither V1 nor V2.
"""

from .retinanet_swinv2_tiny import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone.bottom_up.variant = "swinv2_base_window12_192"
model.backbone.bottom_up.drop_path_rate = 0.3
model.backbone.top_block.in_channels = 1024  # of res5
train.init_checkpoint = "swinv2://swinv2_base_window12_192"
