"""RetinaNet with SwinV2-S under an FPN, on COCO 2017 (in the folder $DETECTRON2_DATASETS):

tools/lazyconfig_train_net.py --config-file configs/retinanet_swinv2_small.py --num-gpus 8

Recipe: untrained. The one of retinanet_swinv2_tiny.

Published: nothing that we know of with RetinaNet and Swin-S, neither V1 nor V2.
"""

from .retinanet_swinv2_tiny import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone.bottom_up.variant = "swinv2_small_window8_256"
train.init_checkpoint = "swinv2://swinv2_small_window8_256"
