"""Mask R-CNN with SwinV2-B under an FPN, on COCO 2017 (in the folder $DETECTRON2_DATASETS):

tools/lazyconfig_train_net.py --config-file configs/mask_rcnn_swinv2_base.py --num-gpus 8

Recipe: untrained. The one of mask_rcnn_swinv2, with the drop path of Swin V1-B in Cascade Mask
R-CNN (0.3). Weights of ImageNet-22k, pre-trained at window 12 (which normalizes the position bias),
used at window 16 as the smaller models are.

Published: nothing that we know of with Mask R-CNN and weights of ImageNet-22k, neither V1 nor V2.
"""

from .mask_rcnn_swinv2 import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone.bottom_up.variant = "swinv2_base_window12_192"
model.backbone.bottom_up.drop_path_rate = 0.3
train.init_checkpoint = "swinv2://swinv2_base_window12_192"
